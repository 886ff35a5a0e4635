"""What an evaluation says of a model, scene by scene, and how two models compare on the scenes they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zk0.evaluation.outcomes import Outcomes
from zk0.evaluation.paired import CONFIDENCE, Difference, difference, stratified
from zk0.records.results import MODELS, Evaluation, Model

Metric = Literal["success_rate", "action_error_deg"]
METRICS: tuple[Metric, ...] = ("success_rate", "action_error_deg")
SITE = "site"
UNSEEN = "unseen"


class IncomparableError(ValueError):
    """Two models were not judged on the same scenes; says what differs and how to evaluate again."""


@dataclass(frozen=True)
class Judged:
    """A model on one task, by one metric.

    Attributes:
        values: Scene (rollout seed or held-out episode) to 1 or 0 for success, or to degrees.
        conditions: What scenes of that number are: two models met the same only if these are equal.
    """

    values: Mapping[int, float]
    conditions: str


@dataclass(frozen=True)
class Scores:
    """A model's evaluation.

    Attributes:
        label: The model, as a person names it.
        digest: Of its checkpoint.
        safe: Whether it passed the safety check.
        failed: Names of the safety checks that it failed.
        roles: Task to ``site`` or ``unseen``.
        by_metric: Metric to task to what was judged; tasks without a simulator have no success rate.
    """

    label: str
    digest: str
    safe: bool
    failed: tuple[str, ...]
    roles: Mapping[str, str]
    by_metric: Mapping[Metric, Mapping[str, Judged]]

    @classmethod
    def of(cls, evaluation: Evaluation, model: Model, label: str) -> Scores:
        """What an evaluation says of one of its two models.

        Args:
            evaluation: What ``zk0 evaluate`` found.
            model: Which of the two.
            label: How to name it.
        """
        settings = ", ".join(f"{name} {value}" for name, value in sorted(evaluation.settings.items()))
        by_metric: dict[Metric, dict[str, Judged]] = {metric: {} for metric in METRICS}
        for name, task in evaluation.tasks.items():
            score = task.of(model)
            if score.outcomes:
                by_metric["success_rate"][name] = _judged(score.outcomes, f"{task.source}, {settings}")
            if score.episode_errors_deg:
                by_metric["action_error_deg"][name] = _judged(score.episode_errors_deg, f"recordings {task.digest}")
        safety = evaluation.safety.of(model)
        return cls(
            label,
            evaluation.models.of(model).digest,
            safety.passed,
            safety.failed,
            {name: task.role for name, task in evaluation.tasks.items()},
            by_metric,
        )


@dataclass(frozen=True)
class TaskComparison:
    """Two models on one task.

    Attributes:
        role: ``site`` or ``unseen``.
        scenes: How many scenes both met.
        a: The first model's mean.
        b: The second's.
        gain: By how much a is better than b; positive is better, whatever the metric.
    """

    role: str
    scenes: int
    a: float
    b: float
    gain: Difference


@dataclass(frozen=True)
class Comparison:
    """Two models by one metric.

    Attributes:
        metric: Which.
        tasks: Task to its comparison.
        overall: ``site`` and ``unseen``, as far as there are such tasks, to the gain of a over b over
            all of them, each weighing the same.
        left_out: Task to why it could not be compared.
    """

    metric: Metric
    tasks: Mapping[str, TaskComparison]
    overall: Mapping[str, Difference]
    left_out: Mapping[str, str]


def compare(a: Scores, b: Scores, metric: Metric, confidence: float = CONFIDENCE) -> Comparison:
    """Compare two models, task by task and overall, on the scenes that both met.

    Raises:
        IncomparableError: They share none; names every task and what differs.
    """
    one, other = a.by_metric[metric], b.by_metric[metric]
    pairs: dict[str, tuple[Outcomes, Outcomes]] = {}
    left_out: dict[str, str] = {}
    for task in dict.fromkeys([*a.roles, *b.roles]):
        reason = _why_not(a, b, metric, task)
        if reason is None:
            scenes = sorted(set(one[task].values) & set(other[task].values))
            pairs[task] = (_outcomes(task, one[task], scenes), _outcomes(task, other[task], scenes))
        else:
            left_out[task] = reason
    if metric == "success_rate" and not one and not other:
        raise IncomparableError(
            f"{a.label} and {b.label} cannot be compared by {metric}: neither drove an arm, which takes simulated "
            "tasks and evaluation.rollouts above 0. Compare by action_error_deg instead, which promotion.metric in "
            "params should name then"
        )
    if not pairs:
        told = "; ".join(f"{task}: {reason}" for task, reason in left_out.items())
        raise IncomparableError(
            f"{a.label} and {b.label} cannot be compared by {metric}: {told}. `zk0 compare --anew` judges both again, "
            "on the same scenes and recordings"
        )
    tasks = {
        task: TaskComparison(
            a.roles[task],
            len(x.scenes),
            float(x.values.mean()),
            float(y.values.mean()),
            _gain(metric, {task: (x, y)}, confidence),
        )
        for task, (x, y) in pairs.items()
    }
    overall = {}
    for role in (SITE, UNSEEN):
        if chosen := {task: pair for task, pair in pairs.items() if a.roles[task] == role}:
            overall[role] = _gain(metric, chosen, confidence)
    return Comparison(metric, tasks, overall, left_out)


def gains(evaluation: Evaluation) -> dict[str, Difference]:
    """By how much the global model is better than the base, overall, as far as the evaluation tells.

    Returns:
        ``success_rate_seen``, ``success_rate_unseen``, ``action_error_deg_seen`` and
        ``action_error_deg_unseen``; positive is better.
    """
    base, model = (Scores.of(evaluation, which, which) for which in MODELS)
    found: dict[str, Difference] = {}
    for metric in METRICS:
        try:
            overall = compare(model, base, metric).overall
        except IncomparableError:
            continue
        found |= {f"{metric}_{'seen' if role == SITE else UNSEEN}": gain for role, gain in overall.items()}
    return found


def _why_not(a: Scores, b: Scores, metric: Metric, task: str) -> str | None:
    """Why two models cannot be compared on a task, or None."""
    for scores in (a, b):
        if task not in scores.roles:
            return f"{scores.label} was not judged on it"
        if task not in scores.by_metric[metric]:
            return f"{scores.label} has no {'rollouts' if metric == 'success_rate' else 'errors by episode'} on it"
    one, other = (scores.by_metric[metric][task] for scores in (a, b))
    if one.conditions != other.conditions:
        return f"{a.label} met {one.conditions}; {b.label} met {other.conditions}"
    shared = len(set(one.values) & set(other.values))
    if shared < 2:
        return (
            f"{a.label} met scenes {_span(one.values)}, {b.label} {_span(other.values)}: "
            f"{shared or 'none'} shared, and two are the least"
        )
    return None


def _gain(metric: Metric, pairs: Mapping[str, tuple[Outcomes, Outcomes]], confidence: float) -> Difference:
    """By how much a is better than b over some tasks."""
    if metric == "action_error_deg":  # less is better, and every site's episodes are its own
        return stratified({task: (b, a) for task, (a, b) in pairs.items()}, confidence)
    if len({a.scenes for a, _ in pairs.values()}) == 1:  # a rollout seed is the same draw under every task
        first, second = ([pair[side] for pair in pairs.values()] for side in (0, 1))
        return difference(_side_by_side(first), _side_by_side(second), confidence)
    return stratified(pairs, confidence)


def _side_by_side(tasks: Sequence[Outcomes]) -> Outcomes:
    values = np.concatenate([one.values for one in tasks], axis=1)
    return Outcomes(values, tuple(one.tasks[0] for one in tasks), tasks[0].seeds, tasks[0].scenes)


def _judged(values: Mapping[str, float], conditions: str) -> Judged:
    return Judged({int(scene): float(value) for scene, value in values.items()}, conditions)


def _outcomes(task: str, judged: Judged, scenes: Sequence[int]) -> Outcomes:
    # A version is one model, not a way of training: it has one training seed, whichever that was.
    return Outcomes.of({0: {task: {scene: judged.values[scene] for scene in scenes}}})


def _span(scenes: Mapping[int, float]) -> str:
    return f"{min(scenes)} to {max(scenes)}"
