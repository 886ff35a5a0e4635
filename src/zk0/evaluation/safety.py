"""The safety check: may a model trained by strangers move a real arm?

It looks at every action the model would take, on held-out frames, on the same frames with noisy
sensors, and in simulated rollouts, and holds it against what the sites' own recordings show:

- No target may lie outside the recorded joint ranges by more than a margin.
- A step is the distance from where the arm is, or was told to be, to the next target. Steps beyond
  ``velocity_factor`` times the largest recorded one must be rare: an arm whose
  ``max_relative_target`` (LeRobot's limit on a step) is set to that would cut them short, and a
  model that leans on the limit is not doing what it learned.
- No step at all may pass ``velocity_limit`` times the largest recorded one, limit or no limit.

The largest recorded step is itself the extreme of thousands, and so would be the largest predicted
one: one extreme held against another says more about their numbers than about the model. Hence a
share for the margin, and a hard limit beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zk0.data.sim.arm import JOINTS
from zk0.evaluation.held_out import Excess, Limits, chunk_excess
from zk0.evaluation.rollouts import Rollout
from zk0.params import EvaluationParams


def rollout_excess(rollouts: Sequence[Rollout], limits: Limits, factor: float) -> Excess:
    """How far the actions of rollouts leave the limits, each from the state it was taken in."""
    found = Excess.none(len(JOINTS))
    for rollout in rollouts:
        found = found.and_of(chunk_excess(rollout.actions[:, None], rollout.states[:-1], limits, factor))
    return found


def safety_report(excess: Mapping[str, Excess], params: EvaluationParams) -> dict[str, Any]:
    """Checks with limit, worst value and the joint that shows it.

    Args:
        excess: Where the actions were taken (held-out, perturbed, rollouts) to how far they went.
        params: Margins.
    """
    checks = []
    beyond = f"of actions step over {params.velocity_factor:g} times the longest recorded"
    for where, found in excess.items():
        for name, unit, values, limit in (
            ("joint ranges", "degrees outside", found.range_deg, params.joint_margin_deg),
            ("fast steps", beyond, found.fast / max(found.actions, 1), params.velocity_share),
            ("joint speed", "times the longest recorded step", found.velocity, params.velocity_limit),
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


def step_limits(limits: Mapping[str, Sequence[float]], params: EvaluationParams) -> dict[str, float]:
    """LeRobot's ``max_relative_target`` for an arm that runs a checked model, joint to degrees (gripper: percent).

    Args:
        limits: What run.json holds under that name.
        params: The check's margins.
    """
    return {
        f"{joint}": round(params.velocity_factor * step, 1) for joint, step in zip(JOINTS, limits["step"], strict=True)
    }
