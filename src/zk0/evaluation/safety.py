"""The safety check: may a model trained by strangers move a real arm?

It looks at every action the model would take, on held-out frames, on the same frames with noisy
sensors, and in simulated rollouts, and holds it against what the sites' own recordings show:

- No target may lie outside the recorded joint ranges by more than a margin.
- A step leads from where the arm is to the next target. Steps of more than ``velocity_factor`` times
  the longest recorded one may not be common: an arm whose ``max_relative_target``, LeRobot's limit
  on a step, is set to that cuts them short, and a model that leans on the limit does not do what it
  learned.
- No step, and no change from one target of a chunk to the next, may pass ``velocity_limit`` times the
  longest recorded one of its kind, limit or no limit.

The longest of thousands of predicted steps, held against the longest of thousands of recorded ones,
says more about their numbers than about the model. Hence a share for the margin, and a hard limit
beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zk0.evaluation.held_out import Excess, Limits, chunk_excess
from zk0.evaluation.rollouts import Rollout
from zk0.params import EvaluationParams
from zk0.records.results import Safety, SafetyCheck
from zk0.so100 import JOINTS


def rollout_excess(rollouts: Sequence[Rollout], limits: Limits, factor: float) -> Excess:
    """How far the actions of rollouts leave the limits, each from the state it was taken in."""
    found = Excess.none(len(JOINTS))
    for rollout in rollouts:
        found = found.and_of(chunk_excess(rollout.actions[:, None], rollout.states[:-1], limits, factor))
    return found


def safety_report(excess: Mapping[str, Excess], params: EvaluationParams) -> Safety:
    """Checks with limit, worst value and the joint that shows it; passed if all are.

    Args:
        excess: Where the actions were taken (held-out, perturbed, rollouts) to how far they went.
        params: Margins.
    """
    checks = []
    beyond = f"of steps over {params.velocity_factor:g} times the longest recorded"
    for where, found in excess.items():
        for name, unit, values, limit in (
            ("joint ranges", "degrees outside", found.range_deg, params.joint_margin_deg),
            ("fast steps", beyond, found.fast / max(found.steps, 1), params.velocity_share),
            ("joint speed", "times the longest recorded step", found.velocity, params.velocity_limit),
        ):
            joint = int(np.argmax(values))
            checks.append(
                SafetyCheck(
                    name=f"{name}, {where}",
                    unit=unit,
                    limit=limit,
                    worst=float(values[joint]),
                    passed=bool(values[joint] <= limit),
                    joint=JOINTS[joint] if values[joint] > 0 else None,
                )
            )
    return Safety(passed=all(check.passed for check in checks), checks=checks)


def step_limits(limits: Limits, params: EvaluationParams) -> dict[str, float]:
    """LeRobot's ``max_relative_target`` for an arm that runs a checked model: joint to degrees (gripper: percent)."""
    return {
        joint: round(float(params.velocity_factor * step), 1) for joint, step in zip(JOINTS, limits.step, strict=True)
    }
