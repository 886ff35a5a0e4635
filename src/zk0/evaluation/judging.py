"""Judge a model on one task: its actions on held-out recordings, and what it does in closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zk0.data.frames import Frames
from zk0.data.joints import JOINTS
from zk0.data.sim.tasks import find_task
from zk0.evaluation.held_out import Limits, SensorNoise, episode_errors, held_out_excess, mean_error
from zk0.evaluation.rollouts import Rollout, roll_out
from zk0.params import EvaluationParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.sources import Source

if TYPE_CHECKING:
    from zk0.policy.features import FrameFeatures


def judge_actions(
    loaded: LoadedPolicy,
    frames: Frames,
    features: FrameFeatures | None,
    settings: EvaluationParams,
    seed: int,
    limits: Limits,
) -> dict[str, Any]:
    """Action error by joint and by episode, and how far actions leave the recorded limits; as plain values.

    Args:
        loaded: Policy and processors.
        frames: Held-out frames.
        features: Their cached features, if there are any.
        settings: The sensors' noise, and which steps count as fast.
        seed: Decides all noise.
        limits: What the recordings show.
    """
    noise = SensorNoise(settings.perturbation, settings.perturbation_deg)
    factor = settings.velocity_factor
    plain = held_out_excess(loaded, frames, limits, seed, factor, features=features)
    perturbed = held_out_excess(loaded, frames, limits, seed, factor, noise)
    errors = episode_errors(loaded, frames, seed, features)
    return {
        "action_error": dict(zip(JOINTS, mean_error(errors).tolist(), strict=True)),
        # The gripper is in percent; the mean in degrees is over the five arm joints.
        "episode_error_deg": {str(episode): float(error[:5].mean()) for episode, (error, _) in errors.items()},
        "excess": {"held-out": plain.content(), "perturbed": perturbed.content()},
    }


def roll_out_source(
    loaded: LoadedPolicy,
    source: str,
    settings: EvaluationParams,
    scenes: Sequence[int],
    *,
    side_by_side: int = 10,
    filmed: int = 0,
) -> list[Rollout]:
    """Closed-loop episodes of a source's task; none where there is no simulator of it. See :func:`roll_out`."""
    parsed = Source.parse(source)
    if parsed.kind != "sim" or not scenes:
        return []
    return roll_out(
        loaded,
        find_task(parsed.name),
        scenes,
        max_steps=settings.max_steps,
        actions_per_look=settings.actions_per_look,
        side_by_side=side_by_side,
        filmed=filmed,
    )
