"""Run a command in a project and stream its lines to the flow run's log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from zk0.records.journal import read_lines

_LAST = 15


class CommandFailed(RuntimeError):
    """A command ended with another status than 0; the message is its last lines."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def stream(
    command: Sequence[str],
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
    on_line: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Run a command, log its lines as they come, and end it when the flow is cancelled.

    Args:
        command: Program and arguments.
        root: Project folder, where it runs.
        environment: Further variables.
        without: Beginnings of variables' names that the command does not inherit.
        leave_out: Beginnings of lines that are not worth logging.
        on_line: Called with each line.

    Returns:
        The lines.

    Raises:
        CommandFailed: Its exit status was not 0.
    """
    logger = get_run_logger()
    lines: list[str] = []
    with started(command, root, environment, without) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = line.rstrip()
                if text and not text.strip().startswith(leave_out):
                    lines.append(text)
                    logger.info(text)
                    on_line(text)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise CommandFailed("\n".join(lines[-_LAST:]), process.returncode)
    return lines


def started(
    command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None, without: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a command in a project, its output and errors as one stream of text; as :func:`stream` takes them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**inherited, "PYTHONUNBUFFERED": "1", "COLUMNS": "110", **(environment or {})},
    )


def read_events(path: Path, since: str = "") -> list[dict[str, Any]]:
    """Complete lines of events.jsonl; it is being written while it is read.

    Args:
        path: The file; there need be none yet.
        since: Leave out what was said before this time, ISO 8601 in UTC with milliseconds.
    """
    return [event for event in read_lines(path) if event["time"] >= since]
