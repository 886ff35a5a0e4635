"""Judge a model task by task: held-out loss, action error, closed loop, and how far its actions leave the limits.

Whoever judges does it here and gets the same record: the pipeline, ``zk0 compare --anew``, the studies, and a site
that is asked for details. Scenes, noise and times are fixed by seed, the same for every model, so that models are
compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from zk0.data.frames import Frames
from zk0.data.manifest import Manifest
from zk0.evaluation.held_out import (
    Excess,
    Limits,
    SensorNoise,
    episode_errors,
    frames_excess,
    held_out_loss,
    mean_error,
    predictions,
)
from zk0.evaluation.paired import wilson
from zk0.evaluation.rollouts import Rollout, why_no_rollouts
from zk0.evaluation.safety import rollout_excess, safety_report
from zk0.params import EvaluationParams, FeatureParams, Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import StoredFeatures
from zk0.records.results import Overall, TaskScore
from zk0.so100 import ARM_JOINTS, JOINTS

_ARM = slice(len(ARM_JOINTS))  # the gripper is in percent of its opening; degrees are of the joints before it


class Recordings(Protocol):
    """A task's recordings on this machine, such as :class:`zk0.federation.site.Site`."""

    @property
    def held_out_frames(self) -> Frames:
        """Frames of the held-out episodes."""

    def features(self, part: str, loaded: LoadedPolicy, settings: FeatureParams) -> StoredFeatures | None:
        """The kept features of the ``held-out`` frames; None where there is no use for them."""


@dataclass(frozen=True)
class JudgedTask:
    """A model on one task.

    Attributes:
        manifest: The task's.
        score: As evaluation.json has it.
        excess: Where actions were taken (held-out, perturbed, rollouts) to how far they leave the limits.
    """

    manifest: Manifest
    score: TaskScore
    excess: Mapping[str, Excess]


@dataclass(frozen=True)
class JudgedModel:
    """A model on all tasks.

    Attributes:
        file: The checkpoint's ``digest``, and what else evaluation.json shall say of it.
        tasks: What it came to on each.
    """

    file: Mapping[str, Any]
    tasks: Sequence[JudgedTask]


def judge_actions(
    loaded: LoadedPolicy,
    frames: Frames,
    features: StoredFeatures | None,
    settings: EvaluationParams,
    seed: int,
    limits: Limits | None = None,
) -> tuple[TaskScore, dict[str, Excess]]:
    """Judge the actions that a model would take on held-out frames; no simulator is needed.

    Args:
        loaded: Policy and processors.
        frames: Held-out frames.
        features: Their cached features, if there are any.
        settings: The sensors' noise, and which steps count as fast.
        seed: Decides all noise.
        limits: What the recordings show; None where nobody asks how far actions leave them.

    Returns:
        Action errors, and the excess on the frames as they are and with noisy sensors.
    """
    excess: dict[str, Excess] = {}
    plain = list(predictions(loaded, frames, seed, features=features))
    if limits is not None:
        noise = SensorNoise(settings.perturbation, settings.perturbation_deg)
        noisy = predictions(loaded, frames, seed, noise)
        for where, found in (("held-out", plain), ("perturbed", noisy)):
            excess[where] = frames_excess(frames, found, limits, settings.velocity_factor)
    errors = episode_errors(frames, plain)
    by_joint = mean_error(errors)
    score = TaskScore(
        held_out_frames=len(frames),
        action_error_deg=float(by_joint[_ARM].mean()),
        action_error_deg_by_joint=dict(zip(JOINTS, by_joint.tolist(), strict=True)),
        episode_errors_deg={str(episode): float(error[_ARM].mean()) for episode, (error, _) in errors.items()},
    )
    return score, excess


def judge_task(
    loaded: LoadedPolicy,
    manifest: Manifest,
    recordings: Recordings,
    params: Params,
    rollouts: Sequence[Rollout],
    limits: Limits | None = None,
) -> JudgedTask:
    """Judge a model on a task.

    Args:
        loaded: The model with its normalisation.
        manifest: The task's.
        recordings: Of the task.
        params: Its ``seed`` fixes noise and times.
        rollouts: The model's on this task, see :func:`zk0.evaluation.rollouts.roll_out_source`.
        limits: See :func:`judge_actions`.
    """
    frames, features = recordings.held_out_frames, recordings.features("held-out", loaded, params.features)
    settings = params.evaluation
    loss = held_out_loss(loaded, frames, settings.loss_draws, params.seed, features)
    score, excess = judge_actions(loaded, frames, features, settings, params.seed, limits)
    if rollouts and limits is not None:
        excess["rollouts"] = rollout_excess(rollouts, limits, settings.velocity_factor)
    return JudgedTask(manifest, score.model_copy(update={"held_out_loss": loss, **_closed_loop(rollouts)}), excess)


def _closed_loop(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """The part of a score that rollouts decide."""
    if not rollouts:
        return {}
    successes = sum(r.success for r in rollouts)
    low, high = wilson(successes, len(rollouts))
    return {
        "rollouts": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "success_low": low,
        "success_high": high,
        "mean_steps": float(np.mean([r.steps for r in rollouts])),
        "outcomes": {str(r.seed): r.success for r in rollouts},
    }


def overall(tasks: Sequence[JudgedTask]) -> Overall:
    """Means over the sites; success also over the unseen tasks. Nulls where no arm was driven, since 0 is a result."""
    seen, unseen = ([task.score for task in tasks if task.manifest.role == role] for role in ("site", "unseen"))
    rollouts = sum(score.rollouts for score in [*seen, *unseen])
    return Overall(
        held_out_loss=_mean(score.held_out_loss for score in seen),
        action_error_deg=_mean(score.action_error_deg for score in seen),
        success_rate_seen=_mean(score.success_rate for score in seen),
        success_rate_unseen=_mean(score.success_rate for score in unseen),
        successes=sum(score.successes for score in [*seen, *unseen]) if rollouts else None,
        rollouts=rollouts or None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def evaluation_of(models: Mapping[Literal["base", "global"], JudgedModel], params: Params) -> dict[str, Any]:
    """Models judged on the same tasks, as evaluation.json holds them.

    With source and settings it says what a rollout seed stands for (:mod:`zk0.evaluation.scores`).
    """
    settings = params.evaluation
    tasks: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        for task in model.tasks:
            manifest = task.manifest
            about = {
                "role": manifest.role,
                "sentence": manifest.tasks[0],
                "source": manifest.source,
                "digest": manifest.digest,
                "no_rollouts": why_no_rollouts(manifest.source, settings.rollouts),
            }
            tasks.setdefault(manifest.site, about)[name] = task.score.model_dump()
    return {
        "models": {name: dict(model.file) for name, model in models.items()},
        "settings": settings.model_dump(include={"max_steps", "actions_per_look"}),
        "tasks": tasks,
        "overall": {name: overall(model.tasks).model_dump() for name, model in models.items()},
        "safety": {name: _safety(model.tasks, settings) for name, model in models.items()},
    }


def _safety(tasks: Sequence[JudgedTask], settings: EvaluationParams) -> dict[str, Any]:
    """The safety check over all tasks together."""
    excess: dict[str, Excess] = {}
    for task in tasks:
        for where, found in task.excess.items():
            excess[where] = excess[where].and_of(found) if where in excess else found
    return safety_report(excess, settings).model_dump()
