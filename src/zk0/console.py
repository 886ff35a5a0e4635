"""Where zk0 prints, and how long work shows its progress."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
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


class _ProgressInLines(Progress):
    """Counted work where no bar can move, as in a log: a line at its begin and end, and every few seconds between."""

    _EVERY_S = 2.0

    def __init__(self) -> None:
        super().__init__(console=console, disable=True)
        self._told: dict[TaskID, tuple[float, float]] = {}  # when, and how much was done

    def add_task(self, *given: Any, **named: Any) -> TaskID:
        task = super().add_task(*given, **named)
        self._tell(task)
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **named: Any) -> None:
        super().update(task_id, **named)
        self._tell(task_id)

    def _tell(self, number: TaskID) -> None:
        task, now = self._tasks[number], time.monotonic()
        since, done = self._told.get(number, (-self._EVERY_S, -1.0))
        if task.total and task.completed != done and (task.finished or now - since >= self._EVERY_S):
            self._told[number] = (now, task.completed)
            self.console.print(f"{task.description}: {task.completed:.0f} of {task.total:.0f}", markup=False)


# Such a line, as it is found again in a log.
PROGRESS = re.compile(r"(?P<what>.+): (?P<done>\d+) of (?P<total>\d+)")


def progress_bar() -> Progress:
    """A progress display for counted work: a bar at a terminal, lines elsewhere."""
    if not console.is_terminal:
        return _ProgressInLines()
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
