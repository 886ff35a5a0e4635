"""The comparison of base and global model as a table for a terminal and as Markdown."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from zk0.console import folded_table
from zk0.records.results import Evaluation, TaskScore
from zk0.words import markdown_table

_COLUMNS = ("task", "action error (deg)", "held-out loss")
_SUCCESS = "success"


def on_driving(evaluation: Evaluation) -> list[str]:
    """Sentences on how arms were driven, and on the tasks on which none was, and why."""
    tasks, overall = evaluation.tasks, evaluation.overall.trained
    lines = []
    if overall.success_rate_seen is not None and overall.raw_success_rate_seen is not None:
        lines.append(
            f"driven as LeRobot drives an arm, within its longest step: {overall.success_rate_seen:.1%} on the sites' "
            f"tasks; with no step cut {overall.raw_success_rate_seen:.1%}"
        )
    reasons: dict[str, list[str]] = {}
    for name, task in tasks.items():
        if not task.trained.rollouts:
            reasons.setdefault(task.no_rollouts or "there were no rollouts", []).append(name)
    for reason, names in reasons.items():
        where = "" if len(names) == len(tasks) else f" on {', '.join(names)}"
        lines.append(f"success was not measured{where}: {reason}")
    if sum(map(len, reasons.values())) == len(tasks):
        lines.append("the models are compared by action error and held-out loss")
    return lines


def _success(score: TaskScore) -> str:
    return f"{score.success_rate:.0%} ({score.success_low:.0%}-{score.success_high:.0%})"


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The head and a line a task; without success where it was measured on no task."""
    tasks = evaluation.tasks
    driven = any(task.trained.rollouts for task in tasks.values())
    rows: list[tuple[str, ...]] = [(*_COLUMNS, _SUCCESS) if driven else _COLUMNS]
    for name, task in tasks.items():
        base, new = task.base, task.trained
        row = (
            name if task.role == "site" else f"{name} (unseen)",
            f"{base.action_error_deg:.2f} -> {new.action_error_deg:.2f}",
            f"{base.held_out_loss:.3f} -> {new.held_out_loss:.3f}",
        )
        success = f"{_success(base)} -> {_success(new)}" if new.rollouts else "not measured"
        rows.append((*row, success) if driven else row)
    return rows


def comparison_table(evaluation: Evaluation) -> Group:
    """Base to global model, task by task, with 95% Wilson intervals of the success rate, or why there is none."""
    head, *rows = _rows(evaluation)
    return Group(folded_table(head, rows, title="base -> global model"), *map(Text, on_driving(evaluation)))


def comparison_markdown(evaluation: Evaluation) -> str:
    """The same table in Markdown."""
    head, *rows = _rows(evaluation)
    return "\n".join([markdown_table(head, rows), *(f"\n{line}" for line in on_driving(evaluation))])
