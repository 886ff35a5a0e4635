"""Judge a model's actions on a task's held-out recordings; a site needs no simulator for it."""

from __future__ import annotations

from typing import Any

from zk0.data.frames import Frames
from zk0.evaluation.held_out import Limits, SensorNoise, episode_errors, held_out_excess, mean_error
from zk0.params import EvaluationParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import StoredFeatures
from zk0.so100 import JOINTS


def judge_actions(
    loaded: LoadedPolicy,
    frames: Frames,
    features: StoredFeatures | None,
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
