"""The comparison of base and global model as a table for a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

_COLUMNS = ("task", "action error (deg)", "held-out loss", "success")


def _success(result: dict[str, Any]) -> str:
    if result["success_rate"] is None:
        return "not measured"
    return f"{result['success_rate']:.0%} ({result['success_low']:.0%}-{result['success_high']:.0%})"


def _rows(evaluation: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, task in evaluation["tasks"].items():
        base, new = task["base"], task["global"]
        label = name if task["role"] == "site" else f"{name} (unseen)"
        rows.append(
            (
                label,
                f"{base['action_error_deg']:.2f} -> {new['action_error_deg']:.2f}",
                f"{base['held_out_loss']:.3f} -> {new['held_out_loss']:.3f}",
                f"{_success(base)} -> {_success(new)}",
            )
        )
    return rows


def comparison_table(evaluation: dict[str, Any]) -> Table:
    """Base to global model, task by task, with 95% Wilson intervals of the success rate."""
    table = Table(*_COLUMNS, title="base -> global model")
    for row in _rows(evaluation):
        table.add_row(*row)
    return table


def comparison_markdown(evaluation: dict[str, Any]) -> str:
    """The same table in Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(evaluation)]
    return "\n".join(lines)
