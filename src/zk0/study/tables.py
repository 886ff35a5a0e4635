"""Tables of a study's results: in the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from zk0.console import folded_table
from zk0.evaluation.paired import Difference, Estimate
from zk0.reporting import format as fmt
from zk0.study.arms import FEDERATED
from zk0.study.results import StudyResult
from zk0.study.results_store import StudyFolder
from zk0.words import markdown_table

Rows = list[list[str]]


def markdown(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table; the first column on the left, figures on the right."""
    return markdown_table(head, rows, figures=range(1, len(head)))


def estimate_text(estimate: Estimate | None, closed_loop: bool) -> str:
    """A rate or an error with its interval.

    >>> estimate_text(Estimate(0.5, 0.4, 0.6), True)
    '50% (40 to 60)'
    """
    if estimate is None:
        return fmt.NOTHING
    if closed_loop:
        return f"{estimate.value:.0%} ({estimate.low * 100:.0f} to {estimate.high * 100:.0f})"
    return f"{estimate.value:.2f}° ({estimate.low:.2f} to {estimate.high:.2f})"


def difference_text(found: Difference | None, closed_loop: bool) -> str:
    """An advantage with its interval, in points or degrees."""
    if found is None:
        return fmt.NOTHING
    value, low, high = (_signed(v, closed_loop) for v in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _signed(value: float, closed_loop: bool) -> str:
    """In points or degrees, with its sign."""
    return (f"{value * 100:+.1f}" if closed_loop else f"{value:+.2f}").replace("-", fmt.MINUS)


def p_text(p: float | None) -> str:
    """A p value as it is told.

    >>> p_text(0.0004), p_text(0.25)
    ('< 0.001', '0.250')
    """
    if p is None:
        return fmt.NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def arms_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What each arm came to, and what it took; means over training seeds."""
    unit = "success" if result.closed_loop else "error"
    head = ["arm", f"{unit}, seen tasks", f"{unit}, unseen", "action error", "held-out loss", "steps", "samples"]
    head += ["traffic", "training", "judging"]
    rows = []
    for name, found in result.arms.items():
        seen, unseen = found.tasks("site"), found.tasks("unseen")
        judged = seen or unseen  # who joins late has an unseen task only
        rows.append(
            [
                name,
                estimate_text(result.rate(name, seen), result.closed_loop),
                estimate_text(result.rate(name, unseen), result.closed_loop),
                f"{found.task_average(lambda task: task.action_error_deg, judged):.2f}°",
                f"{found.task_average(lambda task: task.held_out_loss, judged):.4f}",
                fmt.count(found.average(lambda piece: piece.steps)),
                fmt.count(found.average(lambda piece: piece.samples)),
                fmt.data_size(found.average(lambda piece: piece.bytes)),
                fmt.duration(found.average(lambda piece: piece.train_s)),
                fmt.duration(found.average(lambda piece: piece.evaluate_s)),
            ]
        )
    return head, rows


def task_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What every arm came to on every task."""
    tasks = list(dict.fromkeys(task for found in result.arms.values() for task in found.tasks()))
    unseen = {task for found in result.arms.values() for task in found.tasks("unseen")}
    head = ["arm", *(f"{task} (unseen)" if task in unseen else task for task in tasks)]
    rows = [
        [name, *(estimate_text(result.rate(name, [task]), result.closed_loop) for task in tasks)]
        for name in result.arms
    ]
    return head, rows


def difference_table(result: StudyResult) -> tuple[list[str], Rows]:
    """Federated less every other arm, on the seen tasks and the unseen; of a site alone also by whose task it is."""
    head = ["federated less", "tasks", "difference (95%)", "at least (one-sided 95%)", "p better", "p worse"]
    rows: Rows = []
    if FEDERATED not in result.arms:
        return head, rows
    seen, unseen = result.arms[FEDERATED].tasks("site"), result.arms[FEDERATED].tasks("unseen")
    for name, found in result.arms.items():
        if name == FEDERATED:
            continue
        groups = {"seen": seen, "unseen": unseen}
        if found.arm.site:
            others = tuple(task for task in seen if task != found.arm.site)
            groups = {"its own": (found.arm.site,), "the other sites'": others, "unseen": unseen}
        for what, tasks in groups.items():
            if (gap := result.advantage(FEDERATED, name, tasks)) is not None:
                told, bound = difference_text(gap, result.closed_loop), _signed(gap.lower_bound, result.closed_loop)
                rows.append([name, what, told, bound, p_text(gap.p_better), p_text(gap.p_worse)])
    return head, rows


def personal_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What a few steps of its own give a site, on its own task."""
    closed = result.closed_loop
    head = ["site", "alone", "federated", "personalised", "less alone", "p better", "less federated", "p better"]
    rows = []
    for name, found in result.arms.items():
        if found.arm.kind != "personalised" or found.arm.site is None:
            continue
        site, tasks = found.arm.site, (found.arm.site,)
        row = [site, *(estimate_text(result.rate(arm, tasks), closed) for arm in (f"alone:{site}", FEDERATED, name))]
        for other in (f"alone:{site}", FEDERATED):
            gap = result.advantage(name, other, tasks)
            row += [difference_text(gap, closed), p_text(gap.p_better if gap else None)]
        rows.append(row)
    return head, rows


def privacy_table(result: StudyResult) -> tuple[list[str], Rows]:
    """What each budget left of the success, and by how much less than without privacy."""
    closed = result.closed_loop
    head = ["arm", "epsilon", "rounds", "success" if closed else "error", "action error", "less no privacy", "p worse"]
    plain = next((name for name, found in result.arms.items() if not found.arm.changes), None)
    rows = []
    for name, found in result.arms.items():
        tasks = found.tasks("site")
        gap = result.advantage(name, plain, tasks) if plain and name != plain else None
        spent = [piece.epsilon for piece in found.pieces.values() if piece.epsilon is not None]
        rows.append(
            [
                name,
                f"{max(spent):,.3g}" if spent else fmt.NOTHING,
                fmt.count(found.average(lambda piece: len(piece.losses))),
                estimate_text(result.rate(name, tasks), closed),
                f"{found.task_average(lambda task: task.action_error_deg, tasks):.2f}°",
                difference_text(gap, closed),
                p_text(gap.p_worse if gap else None),
            ]
        )
    return head, rows


def attack_table(result: StudyResult) -> tuple[list[str], Rows]:
    """Every strategy under every attack, and the share of its success without one that is left."""
    by_attack: dict[str, dict[str, str]] = {}
    for name, found in result.arms.items():
        by_attack.setdefault(str(found.arm.changes["federation.strategy"]), {})[found.arm.attack or ""] = name
    attacks = list(dict.fromkeys(found.arm.attack or "" for found in result.arms.values()))
    head = ["strategy", *(attack or "no attack" for attack in attacks)]
    rows = []
    for strategy, names in by_attack.items():
        row = [strategy]
        clean = result.rate(names[""], result.arms[names[""]].tasks("site")) if "" in names else None
        for attack in attacks:
            if attack not in names:
                row.append(fmt.NOTHING)
                continue
            found_rate = result.rate(names[attack], result.arms[names[attack]].tasks("site"))
            text = estimate_text(found_rate, result.closed_loop)
            if attack and result.closed_loop and clean and clean.value and found_rate:
                text += f", {found_rate.value / clean.value:.0%} of its own"
            row.append(text)
        rows.append(row)
    return head, rows


def overview(folder: StudyFolder) -> Table:
    """The arms as far as they are run, for a terminal."""
    result = StudyResult.read(folder)
    head, rows = arms_table(result)
    caption = f"{result.missing} pieces are still to be made" if result.missing else None
    kept = [[row[index] for index in (0, 1, 2, 3)] for row in (head, *rows)]  # as much as 80 columns show
    return folded_table(kept[0], kept[1:], title=result.record.title, caption=caption, box=box.SIMPLE)


POOLED_TARGET = 0.80
MARGIN = 0.10
KEPT_TARGET = 0.90
LEVEL = 0.05


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
            f"{mark(rate.value >= POOLED_TARGET)} All data in one place reaches {POOLED_TARGET:.0%} on the sites' "
            f"tasks: {rate.value:.1%} ({best}, the better budget, chosen on these very scenes, which favours it)."
        )
        if gap := result.advantage(FEDERATED, best, seen):
            told.append(
                f"{mark(gap.lower_bound > -MARGIN)} Federated is at most {MARGIN * 100:.0f} points below that, by the "
                f"one-sided 95% bound: {points_text(gap.value)}, at least {points_text(gap.lower_bound)}."
            )
    if gap := result.advantage(FEDERATED, "base", seen):
        told.append(f"{mark(gap.p_better < LEVEL)} The base is clearly below federated: {told_gap(gap)}.")
    for name, found in result.arms.items():
        site = found.arm.site
        if found.arm.kind != "alone" or site is None:
            continue
        others = tuple(task for task in seen if task != site)
        if gap := result.advantage(FEDERATED, name, (site,)):
            told.append(
                f"{mark(gap.p_worse >= LEVEL)} Federated is not shown worse than {site} alone on its own task: "
                f"{told_gap(gap, worse=True)}."
            )
        for what, tasks in (("the other sites' tasks", others), ("the unseen task", unseen)):
            if gap := result.advantage(FEDERATED, name, tasks):
                told.append(
                    f"{mark(gap.p_better < LEVEL)} Federated is better than {site} alone on {what}: {told_gap(gap)}."
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
                aim = f"{mark(kept >= KEPT_TARGET)} " if strategy == chosen else ""
                told.append(
                    f"{aim}{strategy} keeps {kept:.0%} of its success under {found.arm.attack} "
                    f"({before.value:.1%} to {after.value:.1%})."
                )
    return told


def mark(reached: bool) -> str:
    """The beginning of a verdict."""
    return "**Reached.**" if reached else "**Not reached.**"


def points_text(value: float) -> str:
    """Points of success with their sign."""
    return f"{_signed(value, True)} points"


def told_gap(gap: Difference, worse: bool = False) -> str:
    """A difference of success with its interval, and the p value of it being better or worse."""
    p = gap.p_worse if worse else gap.p_better
    interval = f"{_signed(gap.low, True)} to {_signed(gap.high, True)}"
    return f"{points_text(gap.value)} ({interval}), p {'worse' if worse else 'better'} {p_text(p)}"
