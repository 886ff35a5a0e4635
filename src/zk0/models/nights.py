"""Nightly runs at a glance: what each came to, what was decided on it and why, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from zk0.tracking.lineage import RunRow
from zk0.words import markdown_table

NIGHTLY = "nightly"  # the deployment, which is in its flow runs' names
MOST_NIGHTS = 60
UNCHANGED = "Unchanged"
_HEAD = ("night", "run", "champion", "seen (start)", "unseen (start)", "safe", "MB", "seconds", "why no champion")


@dataclass(frozen=True)
class Night:
    """One that made no model.

    Attributes:
        began: When.
        state: In which it ended, as Prefect calls it.
        told: What Prefect says of that.
        seconds: It took.
    """

    began: datetime
    state: str
    told: str
    seconds: float


def nights_markdown(rows: Sequence[RunRow], others: Sequence[Night] = ()) -> str:
    """A table of nights, newest first.

    Args:
        rows: Tracked runs; those of other flow runs, or of none, are left out.
        others: Nights that made none.
    """
    made = [_made(row) for row in rows if NIGHTLY in (row["flow_run"] or "").split()]
    nights = sorted([*made, *(_other(night) for night in others)], key=lambda night: night[0], reverse=True)
    if not nights:
        return "There has been no night yet."
    return markdown_table(_HEAD, ([f"{began:%Y-%m-%d %H:%M}", *cells] for began, cells in nights[:MOST_NIGHTS]))


def _made(row: RunRow) -> tuple[datetime, list[str]]:
    """When a night began that made a model, and the cells after that."""
    moved = (row["bytes_up"] or 0) + (row["bytes_down"] or 0)
    return datetime.fromtimestamp(row["started_ms"] / 1000, UTC), [
        ", ".join([row["name"], *row["versions"]]),
        row["champion"] or "",
        _from(row["success_seen"], row["base_success_seen"]),
        _from(row["success_unseen"], row["base_success_unseen"]),
        {1.0: "yes", 0.0: "no"}.get(-1 if row["safe"] is None else row["safe"], ""),
        f"{moved / 1e6:.0f}",
        "" if row["wall_s"] is None else f"{row['wall_s']:.0f}",
        row["refused"] or "",
    ]


def _other(night: Night) -> tuple[datetime, list[str]]:
    """The same of one that made none."""
    on = "" if night.state == UNCHANGED else "; this deployment goes on from the last complete round"
    return night.began.astimezone(UTC), [night.state, *[""] * 5, f"{night.seconds:.0f}", f"{night.told}{on}"]


def _from(rate: float | None, before: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.0%}" if before is None else f"{rate:.0%} ({before:.0%})"
