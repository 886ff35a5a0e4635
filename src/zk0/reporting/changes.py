"""The base's figures beside the global model's, with intervals.

Where both models met the same scenes, an exact sign test compares them scene by scene: Q. McNemar,
Note on the sampling error of the difference between correlated proportions, Psychometrika 12(2), 1947.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from zk0.evaluation.paired import sign_test, wilson
from zk0.records.results import Task, TaskScore
from zk0.reporting import format as fmt


@dataclass(frozen=True)
class Rate:
    """Successes out of rollouts, with a 95% interval."""

    successes: int
    rollouts: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The observed share of successes, 0 to 1."""
        return self.successes / self.rollouts

    def text(self) -> str:
        """Such as '61 of 80 rollouts (76.2%, 95% interval 65.9% to 84.2%)'."""
        return (
            f"{self.successes} of {self.rollouts} rollouts "
            f"({fmt.percent(self.value)}, 95% interval {fmt.percent(self.low)} to {fmt.percent(self.high)})"
        )


@dataclass(frozen=True)
class Change:
    """A value of the base, the same of the global model, and what to make of it."""

    base: float | None
    trained: float | None

    @property
    def delta(self) -> float | None:
        """Global minus base; None where one of them is unknown."""
        return None if self.base is None or self.trained is None else self.trained - self.base

    @property
    def relative(self) -> float | None:
        """The difference as a share of the base's value."""
        return None if self.delta is None or not self.base else self.delta / abs(self.base)


@dataclass(frozen=True)
class Paired:
    """Scenes that both models met, and those that only one of them mastered."""

    scenes: int
    only_base: int
    only_trained: int

    @property
    def p_value(self) -> float:
        """Two-sided, exact: how often equal models would differ this much."""
        return sign_test(self.only_trained, self.only_base)

    def text(self) -> str:
        """Such as 'in 80 shared scenes, only the global model succeeds in 26 and only the base in 2 (...)'."""
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {fmt.number(self.p_value, 2)}"
        return (
            f"in {self.scenes} shared scenes, only the global model succeeds in {self.only_trained} "
            f"and only the base in {self.only_base} (exact sign test, {p_value})"
        )


@dataclass(frozen=True)
class Success:
    """Both models' success on the same tasks; None where nothing was measured.

    Attributes:
        base: The starting policy's rate.
        trained: The global model's.
        paired: On the scenes that both met.
        not_driven: Tasks that do not count here, with the reason why no arm was driven on them.
    """

    base: Rate | None
    trained: Rate | None
    paired: Paired | None = None
    not_driven: Mapping[str, str] = field(default_factory=dict)

    @property
    def delta(self) -> float | None:
        """Global minus base, as a difference of shares."""
        return None if self.base is None or self.trained is None else self.trained.value - self.base.value

    @property
    def why_not(self) -> str:
        """The reasons, each once."""
        return "; ".join(dict.fromkeys(self.not_driven.values()))

    @property
    def overlap(self) -> bool | None:
        """Whether the two intervals share a value."""
        if self.base is None or self.trained is None:
            return None
        return self.base.low <= self.trained.high and self.trained.low <= self.base.high

    @property
    def direction(self) -> int:
        """1 or -1 where the intervals lie apart, 0 where they do not or nothing was measured."""
        return 0 if self.delta is None or self.overlap else int(math.copysign(1, self.delta))


def rate_of(successes: int, rollouts: int) -> Rate | None:
    """A rate with Wilson's 95% interval; None without rollouts."""
    return Rate(successes, rollouts, *wilson(successes, rollouts)) if rollouts else None


def task_rate(score: TaskScore) -> Rate | None:
    """A task's rate with the interval that `evaluate` wrote, or Wilson's where it wrote none."""
    rate = rate_of(score.successes, score.rollouts)
    if rate is None or score.success_low is None or score.success_high is None:
        return rate
    return Rate(score.successes, score.rollouts, score.success_low, score.success_high)


def task_success(task: Task) -> Success:
    """Both models' success on one task."""
    return Success(task_rate(task.base), task_rate(task.trained))


def pooled_success(tasks: Mapping[str, Task]) -> Success:
    """Both models' success over several tasks, all rollouts counted alike."""

    def pool(scores: list[TaskScore]) -> Rate | None:
        return rate_of(sum(s.successes for s in scores), sum(s.rollouts for s in scores))

    return Success(
        base=pool([t.base for t in tasks.values()]),
        trained=pool([t.trained for t in tasks.values()]),
        paired=_paired(tasks.values()),
        not_driven={name: t.no_rollouts or "no rollouts" for name, t in tasks.items() if not t.trained.rollouts},
    )


def _paired(tasks: Iterable[Task]) -> Paired | None:
    """Count the scenes whose outcome is known for both models."""
    pairs = [
        (task.base.outcomes[seed], task.trained.outcomes[seed])
        for task in tasks
        for seed in task.base.outcomes.keys() & task.trained.outcomes.keys()
    ]
    return Paired(len(pairs), pairs.count((True, False)), pairs.count((False, True))) if pairs else None
