"""events.jsonl: what happened when, one line each, for people and for the flow that mirrors it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zk0.console import console
from zk0.records.files import append_lines
from zk0.records.run import Event

Listener = Callable[[Event], None]

_STYLE = {"round-start": "bold", "site-left-out": "yellow", "resume": "cyan", "stop": "cyan", "done": "bold green"}


class Journal:
    """Append events to a file and tell a listener.

    Args:
        path: The file; continued if it exists.
        listener: Called with each event, for a console.
    """

    def __init__(self, path: Path, listener: Listener = lambda _: None) -> None:
        self._path, self._listener = path, listener
        self._lock = threading.Lock()  # rounds and the saving of states speak from two threads
        path.parent.mkdir(parents=True, exist_ok=True)

    def say(self, event: str, message: str, *, round: int, site: str | None = None, **more: Any) -> None:
        """Note one event, now.

        Args:
            event: Its kind, such as ``round-start``.
            message: For a person.
            round: In which round.
            site: Whom it is about.
            more: Further figures, as :class:`Event` describes them.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.note(Event(event=event, message=message, round=round, site=site, time=time, **more))

    def note(self, event: Event) -> None:
        """Write down an event that another journal has told."""
        with self._lock:
            append_lines(self._path, [event])
            self._listener(event)


def print_event(event: Event) -> None:
    """Print an event as a line for a person at a terminal; rounds stand out, sites are indented."""
    if event.event in ("aggregate", "save", "strategy", "local-training", "extract"):
        return
    indent = "" if event.event in ("round-start", "resume", "stop", "done") else "  "
    console.print(f"{indent}{event.message}", style=_STYLE.get(event.event), markup=False)
