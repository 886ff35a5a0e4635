"""Where zk0 prints, and how long work shows its progress."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# No emoji: a fingerprint with ":CD:" in it would get a disc.
console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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
