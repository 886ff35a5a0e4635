"""Where zk0 prints, and how long work shows its progress."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

# No emoji: a fingerprint with ":CD:" in it would get a disc.
console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def folded_table(head: Iterable[str | Column], rows: Iterable[Sequence[str]] = (), **settings: Any) -> Table:
    """A table of which nothing is cut off: what does not fit a column goes on in its next line.

    Args:
        head: A column each.
        rows: Those that are there already.
        settings: Rich's, as ``title``.
    """
    table = Table(*(Column(name, overflow="fold") if isinstance(name, str) else name for name in head), **settings)
    for row in rows:
        table.add_row(*row)
    return table


@contextlib.contextmanager
def lerobot_quiet() -> Iterator[None]:
    """Swallow what LeRobot prints while it builds and loads policies; its errors are raised."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def progress_bar() -> Progress:
    """A progress display for counted work; a log of a non-terminal gets only its last state."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
