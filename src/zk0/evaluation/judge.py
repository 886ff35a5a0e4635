"""Judge a model task by task: held-out loss, action error, closed loop, and how far its actions leave the limits.

Whoever judges does it here and gets the same record: the pipeline, ``zk0 compare --anew`` and the studies. Scenes,
noise and times are fixed by seed, the same for every model, so that models are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zk0.data.frames import Frames
from zk0.data.manifest import Manifest
from zk0.evaluation.held_out import (
    Excess,
    Limits,
    SensorNoise,
    chunk_excess,
    episode_errors,
    frames_excess,
    held_out_loss,
    mean_error,
    predictions,
)
from zk0.evaluation.paired import wilson
from zk0.evaluation.rollouts import Rollout, roll_out_source, why_no_rollouts
from zk0.params import EvaluationParams, FeatureParams, Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import StoredFeatures
from zk0.records.results import Evaluation, Model, Overall, Safety, SafetyCheck, TaskScore
from zk0.so100 import ARM_JOINTS, JOINTS

_ARM = slice(len(ARM_JOINTS))  # the gripper is in percent of its opening; degrees are of the joints before it


class Recordings(Protocol):
    """A task's recordings on this machine, such as :class:`zk0.federation.site.Site`."""

    @property
    def manifest(self) -> Manifest:
        """Which task, and which of its episodes are held out."""

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
        rollouts: Of which the score tells.
    """

    manifest: Manifest
    score: TaskScore
    excess: Mapping[str, Excess]
    rollouts: Sequence[Rollout]

    @property
    def filmed(self) -> list[Rollout]:
        """The rollouts of which there is a film."""
        return [rollout for rollout in self.rollouts if rollout.frames is not None]


def judge_task(
    loaded: LoadedPolicy,
    recordings: Recordings,
    params: Params,
    rollouts: Sequence[Rollout],
    limits: Limits | None = None,
) -> JudgedTask:
    """Judge a model on a task: on its held-out recordings, and by what it came to in closed loop.

    Args:
        loaded: The model with its normalisation.
        recordings: Of the task.
        params: Its ``seed`` fixes noise and times.
        rollouts: The model's on this task, see :func:`zk0.evaluation.rollouts.roll_out_source`.
        limits: What the recordings show; None where nobody asks how far actions leave them.
    """
    frames, features = recordings.held_out_frames, recordings.features("held-out", loaded, params.features)
    settings, seed = params.evaluation, params.seed
    predicted = list(predictions(loaded, frames, seed, features=features))
    errors = episode_errors(frames, predicted)
    by_joint = mean_error(errors)
    score = TaskScore(
        held_out_loss=held_out_loss(loaded, frames, settings.loss_draws, seed, features),
        held_out_frames=len(frames),
        action_error_deg=float(by_joint[_ARM].mean()),
        action_error_deg_by_joint=dict(zip(JOINTS, by_joint.tolist(), strict=True)),
        episode_errors_deg={str(episode): float(error[_ARM].mean()) for episode, (error, _) in errors.items()},
        **_closed_loop(rollouts).content(),
    )
    excess: dict[str, Excess] = {}
    if limits is not None:
        factor = settings.velocity_factor
        perturbed = predictions(loaded, frames, seed, SensorNoise(settings.perturbation, settings.perturbation_deg))
        excess["held-out"] = frames_excess(frames, predicted, limits, factor)
        excess["perturbed"] = frames_excess(frames, perturbed, limits, factor)
        if rollouts:
            excess["rollouts"] = rollout_excess(rollouts, limits, factor)
    return JudgedTask(recordings.manifest, score, excess, rollouts)


def judge_models(
    models: Mapping[Model, LoadedPolicy],
    tasks: Iterable[Recordings],
    params: Params,
    limits: Limits,
    filmed: int = 0,
) -> dict[Model, list[JudgedTask]]:
    """Judge models beside each other, each on every task and on the scenes of the params.

    Args:
        models: With their normalisation.
        tasks: One after the other; recordings are let go of before the next are asked for.
        params: Settings, scenes and seed.
        limits: What the sites' recordings show the arm doing.
        filmed: How many of a task's first rollouts to film.
    """
    settings = params.evaluation
    scenes = range(settings.seed, settings.seed + settings.rollouts)
    judged: dict[Model, list[JudgedTask]] = {model: [] for model in models}
    for recordings in tasks:
        for model, loaded in models.items():
            rollouts = roll_out_source(loaded, recordings.manifest.source, settings, scenes, filmed=filmed)
            judged[model].append(judge_task(loaded, recordings, params, rollouts, limits))
    return judged


def _closed_loop(rollouts: Sequence[Rollout]) -> TaskScore:
    """The part of a score that rollouts decide."""
    if not rollouts:
        return TaskScore()
    successes = sum(r.success for r in rollouts)
    low, high = wilson(successes, len(rollouts))
    return TaskScore(
        rollouts=len(rollouts),
        successes=successes,
        success_rate=successes / len(rollouts),
        success_low=low,
        success_high=high,
        mean_steps=float(np.mean([r.steps for r in rollouts])),
        outcomes={str(r.seed): r.success for r in rollouts},
    )


def evaluation_of(
    files: Mapping[Model, Mapping[str, Any]],
    judged: Mapping[Model, Sequence[JudgedTask]],
    params: Params,
    limits: Limits,
) -> Evaluation:
    """Base and global model, judged on the same tasks, as evaluation.json holds them.

    With source and settings it says what a rollout seed stands for (:mod:`zk0.evaluation.scores`).

    Args:
        files: Each model's checkpoint, see :class:`zk0.records.results.ModelFile`.
        judged: What :func:`judge_models` found.
        params: With which it was found.
        limits: With which it was found.
    """
    settings = params.evaluation
    tasks: dict[str, dict[str, object]] = {}
    for model, found in judged.items():
        for task in found:
            manifest = task.manifest
            about: dict[str, object] = {
                "role": manifest.role,
                "sentence": manifest.tasks[0],
                "source": manifest.source,
                "digest": manifest.digest,
                "no_rollouts": why_no_rollouts(manifest.source, settings.rollouts),
            }
            tasks.setdefault(manifest.site, about)[model] = task.score.model_dump()
    return Evaluation.model_validate(
        {
            "models": files,
            "settings": settings.model_dump(include={"max_steps", "actions_per_look"}),
            "tasks": tasks,
            "overall": {model: _overall(found).model_dump() for model, found in judged.items()},
            "safety": {model: safety_report(_excess(found), settings).model_dump() for model, found in judged.items()},
            "max_relative_target": step_limits(limits, settings),
        }
    )


def _overall(tasks: Sequence[JudgedTask]) -> Overall:
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


def _excess(tasks: Sequence[JudgedTask]) -> dict[str, Excess]:
    """How far a model's actions leave the limits on all tasks together, by where they were taken."""
    excess: dict[str, Excess] = {}
    for task in tasks:
        for where, found in task.excess.items():
            excess[where] = excess[where].and_of(found) if where in excess else found
    return excess


def rollout_excess(rollouts: Sequence[Rollout], limits: Limits, factor: float) -> Excess:
    """How far the actions of rollouts leave the limits, each from the state it was taken in."""
    found = Excess.none(len(JOINTS))
    for rollout in rollouts:
        found = found.and_of(chunk_excess(rollout.actions[:, None], rollout.states[:-1], limits, factor))
    return found


def safety_report(excess: Mapping[str, Excess], params: EvaluationParams) -> Safety:
    """May a model trained by strangers move a real arm? Checks with limit, worst value and the joint that shows it.

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
