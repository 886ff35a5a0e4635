"""The safety check: may a model trained by strangers move a real arm?

It passes when every action it would take stays within the joint ranges and speeds that the sites'
own recordings show, within a stated margin: on held-out frames, on perturbed ones, and in the
simulated rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zk0.data.sim.arm import JOINTS
from zk0.evaluation.held_out import Excess, Limits, chunk_excess
from zk0.evaluation.rollouts import Rollout
from zk0.params import EvaluationParams


def rollout_excess(rollouts: Sequence[Rollout], limits: Limits) -> Excess:
    """How far the actions of rollouts leave the limits, each from the state it was taken in."""
    worst = Excess(np.zeros(len(JOINTS)), np.zeros(len(JOINTS)))
    for rollout in rollouts:
        worst = worst.worst(chunk_excess(rollout.actions[:, None], rollout.states[:-1], limits))
    return worst


def safety_report(excess: Mapping[str, Excess], params: EvaluationParams) -> dict[str, Any]:
    """Checks with limit, worst value and the joint that shows it.

    Args:
        excess: Where the actions were taken (held-out, perturbed, rollouts) to the worst excess.
        params: Margins.
    """
    checks = []
    for where, found in excess.items():
        for name, unit, values, limit in (
            ("joint ranges", "degrees outside", found.range_deg, params.joint_margin_deg),
            ("joint speed", "times the fastest recorded", found.velocity, params.velocity_factor),
        ):
            joint = int(np.argmax(values))
            checks.append(
                {
                    "name": f"{name}, {where}",
                    "unit": unit,
                    "limit": limit,
                    "worst": float(values[joint]),
                    "passed": bool(values[joint] <= limit),
                    "joint": JOINTS[joint] if values[joint] > 0 else None,
                }
            )
    return {"passed": all(check["passed"] for check in checks), "checks": checks}
