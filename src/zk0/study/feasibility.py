"""Can it be learned at all? Success of pooled training against data, steps and trainable size.

From the params' own sizes one axis at a time is varied: fewer demonstrations, fewer and more steps, adapters in the
whole expert's stead. Development scenes and one training seed: the study sets the profile ``quality``, which the
comparison then judges on scenes of its own, from the same recordings.
"""

from __future__ import annotations

from typing import Any

from zk0.params import Params
from zk0.study.arms import Arm, site_names

# Shares of the params' own training episodes and optimiser steps, and ranks of the adapters.
EPISODES = (1 / 8, 1 / 4, 1 / 2, 1)
STEPS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
RANKS = (4, 16, 64)
SCENES = 50


def feasibility_changes(params: Params) -> dict[str, Any]:
    """What the study changes of the params: fewer scenes, and no variants."""
    return {"study.scenes": min(params.study.scenes, SCENES), "study.variants": {}}


def feasibility_arms(params: Params) -> tuple[Arm, ...]:
    """Points of the three curves; the params' own sizes belong to all of them."""
    sites, rounds = len(site_names(params.data)), params.federation.rounds
    points = [
        *((share, 1.0, 0) for share in EPISODES),
        *((1.0, share, 0) for share in STEPS),
        *((1.0, 1.0, rank) for rank in RANKS),
    ]
    arms: dict[str, Arm] = {}  # small params round several points to one
    for data, steps, rank in points:
        local = max(1, round(params.training.local_steps * steps))
        arm = _arm(data, local, local * rounds * sites, rank)
        arms[arm.name] = arm
    return tuple(arms.values())


def _arm(share: float, local_steps: int, steps: int, rank: int) -> Arm:
    size = f"adapters of rank {rank}" if rank else "the whole expert"
    data = "all episodes" if share == 1 else f"1/{round(1 / share)} of the episodes"
    name = f"{data}, {steps} steps, {size}"
    return Arm(
        name=name,
        kind="pooled",
        about=f"pooled, {name}",
        budget="samples",
        changes={"training.local_steps": local_steps, "policy.lora_rank": rank},
        share=share,
    )
