"""Commands as Prefect's tasks run them: their lines are logged as they come, and none outlives its flow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from prefect.logging import get_run_logger

from tasks.stop import stoppable
from zk0.errors import StageError
from zk0.services.supervise import end, family_of

_END_S = 60.0  # a command may take to end by itself
_LAST_WORDS = 3  # lines of it that are logged then


class CommandFailed(StageError):
    """A command ended with another status than 0; the message says what it was for, then its last lines."""

    def __init__(self, what: str, status: int, lines: Sequence[str]) -> None:
        self.status, self.last_lines = status, "\n".join(lines[-15:])
        super().__init__(f"{what}:\n{self.last_lines}")


def stream(
    what: str,
    command: Sequence[str],
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
) -> list[str]:
    """Run a command, log its lines as they come, and end it when the flow is cancelled.

    Args:
        what: It is for, as told where it fails.
        command: Arguments for this Python, as ``-m zk0 ...``.
        root: Project folder, where it runs.
        environment: Further variables.
        without: Beginnings of variables' names that the command does not inherit.
        leave_out: Beginnings of lines that are not worth logging.

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
            with stoppable():
                for line in process.stdout:
                    text = line.rstrip()
                    if text and not text.strip().startswith(leave_out):
                        lines.append(text)
                        logger.info(text)
        except BaseException as problem:
            end_command(process, signal.SIGINT if isinstance(problem, KeyboardInterrupt) else signal.SIGTERM)
            lines += [text for line in process.stdout if (text := line.rstrip())]
            logger.info("\n".join(lines[-_LAST_WORDS:]))
            raise
    if process.returncode:
        raise CommandFailed(what, process.returncode, lines)
    return lines


def end_command(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> None:
    """End a command that still runs, with all that it started: DVC would wait for its stage."""
    if process.poll() is not None:
        return
    command = psutil.Process(process.pid)
    for one in family_of([command])[1:]:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(how)
    end([command], lambda one: one.send_signal(how), _END_S)


def started(
    command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None, without: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a command in a project, its output and errors as one stream of text; as :func:`stream` takes them."""
    inherited = {"COLUMNS": "110"} | {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})},
    )
