"""A federated run as its journal and its rounds tell it, while it runs and afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from zk0.records.files import events_so_far, rounds_so_far
from zk0.records.paths import EVENTS, STATES
from zk0.records.run import Event, Round

_BEGINS, _ENDS = ("strategy", "round-start", "resume"), ("done", "failed")

# What a reason for leaving a site out holds, and the kind it is counted as. The reason itself may hold a site's own
# words, which neither metrics nor alerts should carry about.
UNFIT = "unfit"
_KINDS = (
    ("its data is not fit", UNFIT),
    ("no reply", "no-reply"),
    ("the site failed", "site-failed"),
    ("finite", "not-finite"),
    ("its update is refused", "refused"),
    ("lacks model", "lacks-model"),
    ("are refused", "refused"),
    ("the reply's", "refused"),
    ("the reply is", "refused"),
    ("the message", "refused"),
    ("tensor '", "refused"),
)


@dataclass(frozen=True)
class LeftOut:
    """A site that did not count in a round.

    Attributes:
        round: Which.
        site: Whose reply was not used.
        kind: Why, in one word: ``unfit``, ``no-reply``, ``site-failed``, ``not-finite``, ``refused``, ``lacks-model``,
            ``other``.
    """

    round: int
    site: str
    kind: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        run: Its config digest; empty where no state is kept.
        active: Whether it has begun and neither ended nor failed; one that was killed counts as active.
        failed: The round that failed, where the run ended so; None otherwise.
        round_ended: When its last round ended, or it began, in seconds since 1970.
        rows: Its rounds, as in rounds.jsonl.
        left_out: Sites that did not count, oldest first.
        failures: How many rounds failed.
        bytes: By site and direction, ``up`` or ``down``, over all rounds.
    """

    run: str
    active: bool
    failed: int | None
    round_ended: float
    rows: tuple[Round, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    failures: int = 0
    bytes: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def round(self) -> int:
        """The last round that is complete; 0 = none."""
        return self.rows[-1].round if self.rows else 0


def read_progress(root: Path) -> Progress | None:
    """What is known of a project's last federated run; None where there was none.

    Args:
        root: Project folder; its files may be written to meanwhile.
    """
    events = events_so_far(root / EVENTS)
    if not events:
        return None
    rows = rounds_so_far(root)
    last = next((event for event in reversed(events) if event.event in (*_BEGINS, *_ENDS)), None)
    ended = [event for event in events if event.event in ("save", "strategy", "resume")] or events[:1]
    failures = [event for event in events if event.event == "failed"]
    return Progress(
        run=_run_of(root),
        active=last is not None and last.event in _BEGINS,
        failed=last.round if last is not None and last.event == "failed" else None,
        round_ended=_seconds(ended[-1]),
        rows=tuple(rows),
        left_out=tuple(
            LeftOut(event.round or 0, str(event.site), kind_of(str(event.message)))
            for event in events
            if event.event == "site-left-out"
        ),
        failures=len(failures),
        bytes=_bytes(rows),
    )


def kind_of(reason: str) -> str:
    """The kind of a reason for which a site was left out.

    >>> kind_of("kitchen is left out: no reply within 600.0 s")
    'no-reply'
    """
    own = reason.partition(" says: ")[0]  # what comes after is the site's, and decides nothing
    return next((kind for words, kind in _KINDS if words in own), "other")


def _bytes(rows: list[Round]) -> dict[str, dict[str, int]]:
    """Bytes by site and direction, over all rounds."""
    up: Counter[str] = Counter()
    down: Counter[str] = Counter()
    for row in rows:
        for site, values in row.sites.items():
            up[site] += values.bytes_up or 0
            down[site] += values.bytes_down or 0
    return {site: {"up": up[site], "down": down[site]} for site in sorted(up | down)}


def _run_of(root: Path) -> str:
    """The run whose state was written to last: the journal's copy there grows with it."""
    kept = list((root / STATES).glob("*/events.jsonl"))
    return max(kept, key=lambda path: path.stat().st_mtime_ns).parent.name if kept else ""


def _seconds(event: Event) -> float:
    return datetime.fromisoformat(event.time).timestamp() if event.time else 0.0
