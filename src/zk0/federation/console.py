"""Federation events as lines for a person at a terminal."""

from __future__ import annotations

from zk0.console import console
from zk0.records.run import Event

_STYLE = {"round-start": "bold", "site-left-out": "yellow", "resume": "cyan", "stop": "cyan", "done": "bold green"}


def print_event(event: Event) -> None:
    """Print one event; rounds stand out, sites are indented."""
    if event.event in ("aggregate", "save", "strategy", "local-training", "extract"):
        return
    indent = "" if event.event in ("round-start", "resume", "stop", "done") else "  "
    style = _STYLE.get(event.event)
    console.print(f"{indent}{event.message}", style=style, markup=False)
