"""Can it be learned at all? Success of pooled training against data, steps and trainable size.

One axis at a time is varied, from the middle of the others. Development scenes and one training seed:
the study sets the profile ``quality``, which the comparison then judges on scenes of its own.
"""

from __future__ import annotations

from typing import Any

from zk0.comparison.arms import Arm, site_names
from zk0.params import Params

# Optimiser steps in one place at the params' batch, training episodes of each site, and ranks of the adapters.
STEPS = (720, 1440, 2880, 5760)
EPISODES = (24, 48, 96, 192)
RANKS = (4, 16, 64)
SCENES = 50


def feasibility_changes(params: Params) -> dict[str, Any]:
    """What the study changes of the params: enough recordings, no unseen tasks, fewer scenes."""
    enough = round(max(episodes_of(params)) / (1 - params.data.held_out) + 0.5)
    return {
        "data.episodes": enough,
        "data.unseen": {},
        "study.scenes": min(params.study.scenes, SCENES),
        "study.variants": {},
    }


def episodes_of(params: Params) -> tuple[int, ...]:
    """Training episodes of each site that are tried; small where the params' own recordings are."""
    most = params.data.episodes
    return EPISODES if most >= min(EPISODES) else tuple(sorted({max(1, most // 2), most}))


def feasibility_arms(params: Params) -> tuple[Arm, ...]:
    """Points of the three curves; the middle belongs to all of them."""
    episodes, sites = episodes_of(params), len(site_names(params.data))
    rounds, own = params.federation.rounds, params.training.local_steps * params.federation.rounds * sites
    steps = STEPS if own >= min(STEPS) else (own, 2 * own)
    middle = (episodes[-2], steps[-2], 0)
    points = [
        *((count, middle[1], 0) for count in episodes),
        *((middle[0], count, 0) for count in steps),
        *((*middle[:2], rank) for rank in RANKS),
    ]
    return tuple(_arm(*point, rounds, sites) for point in dict.fromkeys(points))


def _arm(episodes: int, steps: int, rank: int, rounds: int, sites: int) -> Arm:
    local = max(1, round(steps / (rounds * sites)))
    size = f"adapters of rank {rank}" if rank else "the whole expert"
    return Arm(
        name=f"{episodes} episodes, {local * rounds * sites} steps, {size}",
        kind="pooled",
        about=f"pooled, {episodes} training episodes of each site, {local * rounds * sites} steps, {size}",
        budget="samples",
        changes={"training.local_steps": local, "policy.lora_rank": rank},
        episodes=episodes,
    )
