"""Judge a model task by task: held-out loss, action error, closed loop, and what its actions ask of an arm.

Whoever judges does it here and gets the same record: the pipeline, ``zk0 compare --anew`` and the studies. Scenes,
noise and times are fixed by seed, the same for every model, so that models are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zk0.console import progress_bar
from zk0.data.frames import Frames
from zk0.data.manifest import Manifest
from zk0.evaluation.held_out import SensorNoise, episode_errors, held_out_loss, mean_error, predictions
from zk0.evaluation.limits import Limits
from zk0.evaluation.paired import wilson
from zk0.evaluation.rollouts import Driven, Rollout, drive, why_no_rollouts
from zk0.evaluation.safety import Arm, Motion, frames_motion, recorded_jerk, rollouts_motion, safety_report
from zk0.evaluation.side_by_side import each
from zk0.params import FeatureParams, Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import StoredFeatures
from zk0.records.results import Evaluation, Model, Overall, TaskScore
from zk0.so100 import ARM_JOINTS, JOINTS

_ARM = slice(len(ARM_JOINTS))  # the gripper is in percent of its opening; degrees are of the joints before it


class Recordings(Protocol):
    """A task's recordings on this machine, such as :class:`zk0.federation.site.Site`."""

    @property
    def manifest(self) -> Manifest:
        """Which task, and which of its episodes are held out."""

    @property
    def train_frames(self) -> Frames:
        """Frames of the training episodes; not asked for where there are none."""

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
        motion: Where actions were taken (held-out, perturbed, rollouts) to what they ask of the arm.
        driven: The rollouts of which the score tells.
    """

    manifest: Manifest
    score: TaskScore
    motion: Mapping[str, Motion]
    driven: Driven

    @property
    def filmed(self) -> list[Rollout]:
        """The rollouts of which there is a film."""
        return [rollout for rollout in self.driven.limited if rollout.frames is not None]


@dataclass(frozen=True)
class _HeldOut:
    """What a model's predictions on a task's recordings came to.

    Attributes:
        score: The part of it that recordings decide.
        motion: Where actions were taken to what they ask of the arm.
        jerk: The recordings' own, with which that of rollouts is compared.
    """

    score: TaskScore
    motion: Mapping[str, Motion]
    jerk: np.ndarray


def judge_task(
    loaded: LoadedPolicy,
    recordings: Recordings,
    params: Params,
    driven: Driven,
) -> JudgedTask:
    """Judge a model on a task: on its held-out recordings, and by what it came to in closed loop.

    Args:
        loaded: The model with its normalisation.
        recordings: Of the task.
        params: Its ``seed`` fixes noise and times.
        driven: The model's rollouts on this task, see :func:`zk0.evaluation.rollouts.drive`.
    """
    return _with_rollouts(recordings.manifest, _held_out(loaded, recordings, params, None), params, driven, None)


def _held_out(loaded: LoadedPolicy, recordings: Recordings, params: Params, arm: Arm | None) -> _HeldOut:
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
    )
    if arm is None:
        return _HeldOut(score, {}, np.zeros((0, len(JOINTS))))
    noise = SensorNoise(settings.perturbation, settings.perturbation_deg)
    jerk = recorded_jerk(frames, *([recordings.train_frames] if recordings.manifest.train_episodes else []))
    motion = {
        "held-out": frames_motion(frames, predicted, arm, jerk),
        "perturbed": frames_motion(frames, predictions(loaded, frames, seed, noise), arm, jerk),
    }
    return _HeldOut(score, motion, jerk)


def _with_rollouts(
    manifest: Manifest, held_out: _HeldOut, params: Params, driven: Driven, arm: Arm | None
) -> JudgedTask:
    score = held_out.score.model_copy(update=_closed_loop(driven).content())
    motion = dict(held_out.motion)
    if arm is not None and driven.limited:
        looks = params.evaluation.actions_per_look
        motion["rollouts"] = rollouts_motion(driven.limited, arm, held_out.jerk, looks)
    return JudgedTask(manifest, score, motion, driven)


def judge_models(
    models: Mapping[Model, LoadedPolicy],
    manifests: Sequence[Manifest],
    opened: Callable[[Manifest], Recordings],
    params: Params,
    limits: Limits,
    filmed: int = 0,
    about: str = "evaluating",
) -> dict[Model, list[JudgedTask]]:
    """Judge models beside each other, each on every task and on the scenes of the params, and show how far it is.

    What would come of them with no step cut is asked of the global model alone: the base fails either way, for long.
    On a CPU as many rollouts and recordings are judged at a time as params allow threads.

    Args:
        models: With their normalisation.
        manifests: Of the tasks.
        opened: Opens a task's recordings; they are let go of when it is judged.
        params: Settings, scenes and seed.
        limits: What the sites' recordings show the arm doing.
        filmed: How many of a task's first rollouts to film.
        about: What to show beside the progress.
    """
    settings = params.evaluation
    scenes = range(settings.seed, settings.seed + settings.rollouts)
    arm = Arm.of(limits, settings.step_factor)
    sources = dict.fromkeys(manifest.source for manifest in manifests)  # sites may share a task, and then its scenes

    def work(item: tuple[Model, str] | Manifest) -> Driven | dict[Model, _HeldOut]:
        if isinstance(item, Manifest):
            recordings = opened(item)
            return {model: _held_out(loaded, recordings, params, arm) for model, loaded in models.items()}
        model, source = item
        return drive(models[model], source, settings, limits, scenes, filmed=filmed, raw=model == "global")

    # What takes longest first, or one process would be left with it at the end.
    rollouts = [(model, source) for model in [*models][::-1] for source in sources]
    items: list[tuple[Model, str] | Manifest] = [*rollouts, *sorted(manifests, key=lambda one: -one.held_out_frames)]
    results = each(work, items, params.threads)
    with progress_bar() as bar:
        made = dict(bar.track(results, total=len(items), description=about))
    driven: dict[tuple[Model, str], Any] = {item: made[n] for n, item in enumerate(items) if isinstance(item, tuple)}
    held_out: dict[str, Any] = {item.site: made[n] for n, item in enumerate(items) if isinstance(item, Manifest)}
    return {
        model: [
            _with_rollouts(manifest, held_out[manifest.site][model], params, driven[model, manifest.source], arm)
            for manifest in manifests
        ]
        for model in models
    }


def _closed_loop(driven: Driven) -> TaskScore:
    """The part of a score that rollouts decide."""
    if not driven.limited:
        return TaskScore()
    successes, count = _successes(driven.limited), len(driven.limited)
    low, high = wilson(successes, count)
    return TaskScore(
        rollouts=count,
        successes=successes,
        success_rate=successes / count,
        success_low=low,
        success_high=high,
        raw_success_rate=_successes(driven.raw) / count if driven.raw else None,
        mean_steps=float(np.mean([r.steps for r in driven.limited])),
        outcomes={str(r.seed): r.success for r in driven.limited},
    )


def _successes(rollouts: Sequence[Rollout]) -> int:
    return sum(rollout.success for rollout in rollouts)


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
            "settings": settings.model_dump(include={"max_steps", "actions_per_look", "step_factor"}),
            "tasks": tasks,
            "overall": {model: _overall(found).model_dump() for model, found in judged.items()},
            "safety": {model: safety_report(_motion(found), settings).model_dump() for model, found in judged.items()},
            "max_relative_target": limits.longest_steps(settings.step_factor),
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
        raw_success_rate_seen=_mean(score.raw_success_rate for score in seen),
        successes=sum(score.successes for score in [*seen, *unseen]) if rollouts else None,
        rollouts=rollouts or None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _motion(tasks: Sequence[JudgedTask]) -> dict[str, Motion]:
    """What a model's actions ask of the arm on all tasks together, by where they were taken."""
    motion: dict[str, Motion] = {}
    for task in tasks:
        for where, found in task.motion.items():
            motion[where] = motion[where].and_of(found) if where in motion else found
    return motion
