"""A study's pieces as outcomes that can be compared: rates, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from zk0.evaluation.outcomes import Outcomes
from zk0.evaluation.paired import Difference, Estimate, difference, rate
from zk0.records.comparison import ComparedArm, Comparison, Interval
from zk0.records.results import Role
from zk0.study.results_store import ArmRecord, Piece, StudyFolder, StudyRecord, TaskResult

Whose = str | Mapping[str, str]  # an arm, or of each task the arm that it is taken of


@dataclass(frozen=True)
class ArmResult:
    """An arm and its pieces by training seed, as far as they are made."""

    arm: ArmRecord
    pieces: dict[int, Piece]

    def tasks(self, role: Role | None = None) -> tuple[str, ...]:
        """The tasks on which every piece was judged."""
        first = next(iter(self.pieces.values()))
        return tuple(name for name, task in first.tasks.items() if role in (None, task.role))

    def average(self, figure: Callable[[Piece], float]) -> float:
        """Mean of a figure over training seeds."""
        return mean(figure(piece) for piece in self.pieces.values())

    def task_average(self, figure: Callable[[TaskResult], float], tasks: Sequence[str]) -> float:
        """Mean of a figure over tasks and training seeds."""
        return self.average(lambda piece: mean(figure(piece.tasks[task]) for task in tasks))


@dataclass(frozen=True)
class StudyResult:
    """A study as far as it was run.

    Attributes:
        record: What belongs together.
        arms: Those with at least one piece, by name.
        closed_loop: Whether outcomes are successes of scenes; else errors of held-out episodes, in degrees.
    """

    record: StudyRecord
    arms: dict[str, ArmResult]
    closed_loop: bool

    @classmethod
    def read(cls, folder: StudyFolder) -> StudyResult:
        """From the study's folder.

        Raises:
            StageError: It was not run, or a file is damaged.
        """
        record = folder.record()
        arms = {arm.name: ArmResult(arm, pieces) for arm, pieces in folder.pieces(record) if pieces}
        closed = any(task.outcomes for arm in arms.values() for p in arm.pieces.values() for task in p.tasks.values())
        return cls(record, arms, closed)

    @property
    def missing(self) -> int:
        """Pieces that are still to be made."""
        return sum(len(arm.files) for arm in self.record.arms) - sum(len(arm.pieces) for arm in self.arms.values())

    def pieces(self) -> Iterable[Piece]:
        """The pieces of all arms, as far as they are made."""
        return (piece for arm in self.arms.values() for piece in arm.pieces.values())

    def outcomes(self, name: Whose, tasks: Sequence[str]) -> Outcomes | None:
        """An arm's outcomes on some tasks, (training seeds, tasks, scenes); None where there are none.

        Without a simulator they are minus the error in degrees, so that more is better, of the held-out episodes.
        Tasks may have different numbers of those: the n-th of each are taken together, as many as all tasks have.
        """
        judged = self._judged(name, tasks)
        if not judged:
            return None
        if self.closed_loop:
            if any(not found[task].outcomes for found in judged.values() for task in tasks):
                return None
            return Outcomes.of({seed: {t: _successes(found[t]) for t in tasks} for seed, found in judged.items()})
        errors = {seed: {t: list(found[t].episode_error_deg.values()) for t in tasks} for seed, found in judged.items()}
        count = min(len(values) for by_task in errors.values() for values in by_task.values())
        return Outcomes.of(
            {seed: {t: {n: -v[n] for n in range(count)} for t, v in found.items()} for seed, found in errors.items()}
        )

    def _judged(self, name: Whose, tasks: Sequence[str]) -> dict[int, dict[str, TaskResult]]:
        """By training seed and task; empty where an arm lacks one of the tasks, or arms have no seed in common."""
        whose = dict.fromkeys(tasks, name) if isinstance(name, str) else name
        if any(whose.get(task) not in self.arms for task in tasks):
            return {}
        pieces = {task: self.arms[whose[task]].pieces for task in tasks}
        if any(task not in piece.tasks for task, found in pieces.items() for piece in found.values()):
            return {}
        seeds = [seed for seed in next(iter(pieces.values()), {}) if all(seed in found for found in pieces.values())]
        return {seed: {task: found[seed].tasks[task] for task, found in pieces.items()} for seed in seeds}

    def rate(self, name: Whose, tasks: Sequence[str]) -> Estimate | None:
        """Success rate, or mean error in degrees, with its interval; None where it cannot be known."""
        found = self.outcomes(name, tasks)
        if found is None or (len(found.scenes) < 2 and not self.closed_loop):
            return None
        estimate = rate(found)
        return estimate if self.closed_loop else Estimate(-estimate.value, -estimate.high, -estimate.low)

    def advantage(self, a: Whose, b: Whose, tasks: Sequence[str]) -> Difference | None:
        """By how much ``a`` is better than ``b`` on some tasks, paired; None where it cannot be known.

        Points of success, or degrees by which the error is smaller: above 0, ``a`` is better.
        """
        first, second = self.outcomes(a, tasks), self.outcomes(b, tasks)
        if first is None or second is None:
            return None
        if len(first.seeds) > 1 and len(second.seeds) > 1:
            common = [seed for seed in first.seeds if seed in second.seeds]
            if not common:
                return None
            first, second = first.only(seeds=common), second.only(seeds=common)
        if len(first.scenes) < 2:
            return None
        return difference(first, second)

    def best_pooled(self, tasks: Sequence[str]) -> str | None:
        """The better of the two budgets, by what was observed on these tasks."""
        rates = {n: self.rate(n, tasks) for n, result in self.arms.items() if result.arm.kind == "pooled"}
        known = {name: found.value for name, found in rates.items() if found}
        if not known:
            return None
        return (max if self.closed_loop else min)(known, key=lambda name: known[name])

    def summary(self, revisions: Mapping[str, str]) -> Comparison:
        """Rates of the arms that differ in where training takes place and in nothing else, for a run's report.

        Args:
            revisions: By site, of the recordings that it was made of.
        """
        return Comparison(
            command=self.record.command,
            seeds=self.record.seeds,
            scenes=self.record.scenes,
            closed_loop=self.closed_loop,
            missing=self.missing,
            results_version=self.record.results_version,
            params=self.record.params,
            revisions=dict(revisions),
            arms=tuple(
                ComparedArm(
                    name=name,
                    about=found.arm.about,
                    seen=_interval(self.rate(name, found.tasks("site"))),
                    unseen=_interval(self.rate(name, found.tasks("unseen"))),
                )
                for name, found in self.arms.items()
                if not found.arm.changes
            ),
        )


def _interval(found: Estimate | None) -> Interval | None:
    return None if found is None else Interval(value=found.value, low=found.low, high=found.high)


def _successes(task: TaskResult) -> dict[int, float]:
    return {scene: float(success) for scene, success in task.outcomes.items()}
