"""Is the global model better than the base? Counts, intervals and sentences that claim no more.

Action error in degrees and closed-loop success decide. Held-out loss is shown but does not decide:
each model's loss is in units of its own normalisation statistics.

Where both models met the same scenes, an exact sign test compares them scene by scene: Q. McNemar,
Note on the sampling error of the difference between correlated proportions, Psychometrika 12(2), 1947.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.stats import binomtest

from zk0.evaluation.intervals import wilson
from zk0.reporting import format as fmt
from zk0.reporting.records import Evaluation, Pair, Safety, Task, TaskScore

Level = Literal["better", "worse", "mixed", "unknown"]


@dataclass(frozen=True)
class Rate:
    """Successes out of rollouts, with a 95% interval."""

    successes: int
    rollouts: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The observed share."""
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
        """Global minus base."""
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
        differing = self.only_base + self.only_trained
        return float(binomtest(self.only_trained, differing).pvalue) if differing else 1.0

    def text(self) -> str:
        """Such as 'in 80 shared scenes, only the global model succeeds in 26 and only the base in 2 (...)'."""
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {fmt.number(self.p_value, 2)}"
        return (
            f"in {self.scenes} shared scenes, only the global model succeeds in {self.only_trained} "
            f"and only the base in {self.only_base} (exact sign test, {p_value})"
        )


@dataclass(frozen=True)
class Success:
    """Both models' success on the same tasks; None where nothing was measured."""

    base: Rate | None
    trained: Rate | None
    paired: Paired | None = None

    @property
    def delta(self) -> float | None:
        """Global minus base, as a difference of shares."""
        return None if self.base is None or self.trained is None else self.trained.value - self.base.value

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


@dataclass(frozen=True)
class Verdict:
    """The report's first words."""

    level: Level
    headline: str
    sentences: list[str]
    caveats: list[str]
    error: Change
    loss: Change
    seen: Success
    unseen: Success


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
    )


def _paired(tasks: Iterable[Task]) -> Paired | None:
    """Count the scenes whose outcome is known for both models."""
    pairs = [
        (task.base.outcomes[seed], task.trained.outcomes[seed])
        for task in tasks
        for seed in task.base.outcomes.keys() & task.trained.outcomes.keys()
    ]
    return Paired(len(pairs), pairs.count((True, False)), pairs.count((False, True))) if pairs else None


def judge(evaluation: Evaluation, best_round: int | None = None) -> Verdict:
    """Compare the two models on the sites' tasks and on the unseen ones.

    Args:
        evaluation: Both models' scores.
        best_round: The round that the run chose by held-out loss, if it chose one.
    """
    sites, unseen_tasks = evaluation.with_role("site"), evaluation.with_role("unseen")
    errors = _measured(Change(t.base.action_error_deg, t.trained.action_error_deg) for t in sites.values())
    losses = _measured(Change(t.base.held_out_loss, t.trained.held_out_loss) for t in sites.values())
    better = sum(c.delta < 0 for c in errors if c.delta is not None)
    seen, unseen = pooled_success(sites), pooled_success(unseen_tasks)
    error = _mean(errors)
    chosen = best_round is not None and evaluation.models.trained.round == best_round
    sentences = [_error_sentence(error, better, len(errors))]
    sentences.append(_success_sentence("On the sites' own tasks", seen))
    if unseen_tasks:
        sentences.append(_success_sentence(f"On {_tasks(len(unseen_tasks))} that no site has", unseen))
    sentences.append(_safety_sentence(evaluation.safety))
    safe = evaluation.safety.trained.passed
    return Verdict(
        level=_level(better, len(errors), error, seen, unseen, safe),
        headline=_headline(better, len(errors), seen, unseen, safe),
        sentences=sentences,
        caveats=_caveats(seen, unseen, chosen),
        error=error,
        loss=_mean(losses),
        seen=seen,
        unseen=unseen,
    )


def _measured(changes: Iterable[Change]) -> list[Change]:
    """Those with a value for both models."""
    return [change for change in changes if change.delta is not None]


def _mean(changes: list[Change]) -> Change:
    """The plain mean over sites, for each model."""
    if not changes:
        return Change(None, None)
    return Change(sum(c.base or 0 for c in changes) / len(changes), sum(c.trained or 0 for c in changes) / len(changes))


def _level(better: int, sites: int, error: Change, seen: Success, unseen: Success, safe: bool) -> Level:
    """The verdict in a word: better or worse only when nothing that was measured contradicts it."""
    if 0 < better < sites:
        return "mixed"
    by_error = 0
    if sites:
        by_error = 1 if better == sites else -1 if (error.delta or 0) > 0 else 0
    signs = {by_error, seen.direction, unseen.direction} - {0}
    if not signs:
        return "unknown"
    if -1 not in signs:
        # Whatever else it does, a model that may not go near an arm is not simply better.
        return "better" if safe else "mixed"
    return "mixed" if 1 in signs else "worse"


def _headline(better: int, sites: int, seen: Success, unseen: Success, safe: bool) -> str:
    """All measures in one line, the good and the bad."""
    words = {1: "more successful", 0: "success not clearly different", -1: "less successful"}
    success = "success not measured" if seen.delta is None else words[seen.direction]
    if not sites:
        headline = f"Action error not measured, {success}"
    else:
        opposed = (seen.direction > 0 and not better) or (seen.direction < 0 and better)
        joint = "but" if opposed else "and" if seen.direction else "with"
        headline = f"Better than the base on {better} of {_sites(sites)} by action error, {joint} {success}"
    if seen.direction:
        headline += " on the sites' tasks"
    if unseen.direction:
        headline += f"; {words[unseen.direction]} on unseen tasks"
    return headline if safe else f"{headline}; it fails the safety check"


def _error_sentence(error: Change, better: int, sites: int) -> str:
    """What happened to the action error."""
    if not sites or error.delta is None:
        return "Action error on held-out recordings was not measured."
    counted = f"On held-out recordings the global model's action error is lower than the base's on {better} of "
    if not error.delta:
        return f"{counted}{_sites(sites)}; the mean over sites stays at {fmt.degrees(error.base)}."
    verb = "falls" if error.delta < 0 else "rises"
    change = "" if error.relative is None else f" ({fmt.signed_percent(error.relative)})"
    return (
        f"{counted}{_sites(sites)}; the mean over sites {verb} from {fmt.degrees(error.base)} "
        f"to {fmt.degrees(error.trained)}{change}."
    )


def _success_sentence(where: str, success: Success) -> str:
    """What happened to closed-loop success, and whether the intervals tell the models apart."""
    if success.base is None or success.trained is None:
        return f"{where}, closed-loop success was not measured."
    judged = "overlap, so they do not tell the models apart" if success.overlap else "do not overlap"
    paired = f"; {success.paired.text()}" if success.paired else ""
    return (
        f"{where} it succeeds in {success.trained.text()}, the base in {success.base.text()}; "
        f"the intervals {judged}{paired}."
    )


def _safety_sentence(safety: Pair[Safety]) -> str:
    """Whether the global model may go near an arm."""
    failed = [check.name for check in safety.trained.checks if not check.passed]
    if safety.trained.passed and not failed:
        return "It passes the safety check."
    which = f": {', '.join(failed)}" if failed else ""
    return f"It fails the safety check{which}. Do not run it on a real arm."


def _caveats(seen: Success, unseen: Success, chosen: bool) -> list[str]:
    """What the numbers do not say."""
    caveats = ["One training run with one seed: how results vary from run to run is not measured here."]
    if seen.delta is not None or unseen.delta is not None:
        caveats.append(
            "Intervals count rollouts only, and leave out that both models met the same scenes; "
            "pooled ones treat all tasks' rollouts alike."
        )
    if chosen:
        caveats.append(
            "The round judged here was chosen by its loss on the same held-out recordings, which favours the "
            "global model's action error and loss a little; success was not part of that choice."
        )
    caveats.append("Action errors carry no interval; small differences may be chance.")
    caveats.append("Losses are in units of each model's own statistics; compare the models in degrees and by success.")
    return caveats


def _sites(number: int) -> str:
    return f"{number} site{'' if number == 1 else 's'}"


def _tasks(number: int) -> str:
    return "the one task" if number == 1 else f"the {number} tasks"
