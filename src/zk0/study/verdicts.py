"""What a comparison was to reach, and whether it did, in sentences."""

from __future__ import annotations

from zk0.evaluation.paired import Difference
from zk0.study.arms import FEDERATED
from zk0.study.results import StudyResult
from zk0.study.tables import p_text

POOLED_TARGET = 0.80
MARGIN = 0.10
KEPT_TARGET = 0.90
_LEVEL = 0.05


def comparison_verdicts(result: StudyResult) -> list[str]:
    """The comparison's aims, each with what was found; nothing where it cannot be known."""
    if FEDERATED not in result.arms or not result.closed_loop:
        return []
    seen, unseen = result.arms[FEDERATED].tasks("site"), result.arms[FEDERATED].tasks("unseen")
    told = []
    if best := result.best_pooled(seen):
        rate = result.rate(best, seen)
        assert rate is not None
        told.append(
            f"{_mark(rate.value >= POOLED_TARGET)} All data in one place reaches {POOLED_TARGET:.0%} on the sites' "
            f"tasks: {rate.value:.1%} ({best}, the better budget, chosen on these very scenes, which favours it)."
        )
        if gap := result.advantage(FEDERATED, best, seen):
            told.append(
                f"{_mark(gap.lower_bound > -MARGIN)} Federated is at most {MARGIN * 100:.0f} points below that, by the "
                f"one-sided 95% bound: {_points(gap.value)}, at least {_points(gap.lower_bound)}."
            )
    if gap := result.advantage(FEDERATED, "base", seen):
        told.append(f"{_mark(gap.p_better < _LEVEL)} The base is clearly below federated: {_told(gap)}.")
    for name, found in result.arms.items():
        site = found.arm.site
        if found.arm.kind != "alone" or site is None:
            continue
        others = tuple(task for task in seen if task != site)
        if gap := result.advantage(FEDERATED, name, (site,)):
            told.append(
                f"{_mark(gap.p_worse >= _LEVEL)} Federated is not shown worse than {site} alone on its own task: "
                f"{_told(gap, worse=True)}."
            )
        for what, tasks in (("the other sites' tasks", others), ("the unseen task", unseen)):
            if gap := result.advantage(FEDERATED, name, tasks):
                told.append(
                    f"{_mark(gap.p_better < _LEVEL)} Federated is better than {site} alone on {what}: {_told(gap)}."
                )
    return told


def robustness_verdicts(result: StudyResult) -> list[str]:
    """Whether the strategy chosen beforehand keeps its success under each attack, and FedAvg's beside it."""
    if not result.closed_loop:
        return []
    chosen = str(result.record.params["study"]["robust_strategy"])
    told = []
    for strategy in dict.fromkeys((chosen, "fedavg")):
        clean = f"honest:{strategy}"
        if clean not in result.arms:
            continue
        tasks = result.arms[clean].tasks("site")
        before = result.rate(clean, tasks)
        for name, found in result.arms.items():
            after = result.rate(name, tasks)
            if found.arm.attack and found.arm.changes["federation.strategy"] == strategy and before and after:
                kept = after.value / before.value if before.value else 0.0
                mark = f"{_mark(kept >= KEPT_TARGET)} " if strategy == chosen else ""
                told.append(
                    f"{mark}{strategy} keeps {kept:.0%} of its success under {found.arm.attack} "
                    f"({before.value:.1%} to {after.value:.1%})."
                )
    return told


def _mark(reached: bool) -> str:
    return "**Reached.**" if reached else "**Not reached.**"


def _points(value: float) -> str:
    return f"{value * 100:+.1f} points".replace("-", "\N{MINUS SIGN}")


def _told(gap: Difference, worse: bool = False) -> str:
    p = gap.p_worse if worse else gap.p_better
    interval = f"{_points(gap.low).removesuffix(' points')} to {_points(gap.high).removesuffix(' points')}"
    return f"{_points(gap.value)} ({interval}), p {'worse' if worse else 'better'} {p_text(p)}"
