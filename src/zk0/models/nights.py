"""Nightly runs at a glance: what each came to, what was decided on it and why, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from zk0.tracking.lineage import RunRow
from zk0.words import in_markdown

_NIGHTLY = "nightly"  # the deployment, which is in its flow runs' names
_MOST = 60


def nights_markdown(rows: Sequence[RunRow]) -> str:
    """A table of the runs that nights made, in the order given.

    Args:
        rows: Tracked runs; those of other flow runs, or of none, are left out.
    """
    nights = [row for row in rows if _NIGHTLY in (row["flow_run"] or "").split()]
    if not nights:
        return "No night has made a model yet."
    head = ["night", "run", "champion", "seen (start)", "unseen (start)", "safe", "MB", "seconds", "why not champion"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in nights[:_MOST]:
        moved = (row["bytes_up"] or 0) + (row["bytes_down"] or 0)
        cells = [
            f"{datetime.fromtimestamp(row['started_ms'] / 1000, UTC):%Y-%m-%d %H:%M}",
            ", ".join([row["name"], *row["versions"]]),
            row["champion"] or "",
            _from(row["success_seen"], row["base_success_seen"]),
            _from(row["success_unseen"], row["base_success_unseen"]),
            {1.0: "yes", 0.0: "no"}.get(-1 if row["safe"] is None else row["safe"], ""),
            f"{moved / 1e6:.0f}",
            "" if row["wall_s"] is None else f"{row['wall_s']:.0f}",
            row["refused"] or "",
        ]
        lines.append(f"| {' | '.join(in_markdown(cell) for cell in cells)} |")
    return "\n".join(lines)


def _from(rate: float | None, before: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.0%}" if before is None else f"{rate:.0%} ({before:.0%})"
