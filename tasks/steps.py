"""Run one DVC stage as a task: DVC decides whether it is stale, Prefect shows and retries it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from zk0.checks import Outcome
from zk0.errors import StageError
from zk0.records.files import events_so_far
from zk0.records.run import Event
from zk0.words import in_markdown

SKIPPED = "didn't change, skipping"

# DVC's advice to someone typing at a prompt, which means nothing in a flow run's log.
_ADVICE = ("To track the changes with git", "git add ", "To enable auto staging", "dvc config core.", "Use `dvc push`")


class StageFailed(RuntimeError):
    """A stage's command failed; the message ends with its last lines."""


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: whether it ran, and its seconds."""

    stage: str
    changed: bool
    seconds: float


def run_stage(
    stage: str,
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    force: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> StageRun:
    """Run ``dvc repro --single-item STAGE`` and stream its lines to the run's log.

    Args:
        stage: A stage of dvc.yaml.
        root: Project folder.
        environment: Further variables for the command.
        force: Run it even if nothing it depends on has changed.
        on_line: Called with each line.

    Raises:
        StageFailed: The command failed.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # The stage's own command is `zk0`, which stands beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        lines = stream(
            command, root, environment={"PATH": path, **(environment or {})}, leave_out=_ADVICE, on_line=on_line
        )
    except CommandFailed as error:
        raise StageFailed(f"stage '{stage}' failed:\n{error}") from error
    # A stage that DVC restored from its run cache did not run either, but its outputs are new here.
    changed = not any(SKIPPED in line for line in lines)
    return StageRun(stage, changed, time.monotonic() - began)


def run_alone(
    step: str,
    command: Sequence[str],
    root: Path,
    failed: type[StageError],
    environment: dict[str, str] | None = None,
) -> State[StageRun]:
    """Run a step's command and stream its lines to the run's log.

    Args:
        step: The step, as a person knows it.
        command: Program and arguments.
        root: Project folder, where it runs.
        failed: Raised where it fails, with its last lines.
        environment: Further variables.
    """
    began = time.monotonic()
    try:
        stream(command, root, environment=environment)
    except CommandFailed as error:
        raise failed(f"{step}:\n{error}") from error
    run = StageRun(step, changed=True, seconds=time.monotonic() - began)
    return Completed(data=run, message=f"{run.seconds:.0f} s")


def hub_unreachable(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether it may go better in a minute: only what the Hub did not give."""
    return "the Hub cannot be reached" in str(state.message)


# Of tasks that may ask the Hub.
FROM_THE_HUB: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [10, 60],
    "retry_condition_fn": hub_unreachable,
}


def recorded(
    step: str, do: Callable[[], Outcome], more: Callable[[Outcome], None] = lambda outcome: None
) -> State[StageRun]:
    """Do a step and tell of it.

    Args:
        step: As a person knows it.
        do: The step.
        more: What else is to be made of its outcome, such as an artifact.
    """
    began, logger = time.monotonic(), get_run_logger()
    outcome = do()
    for line in outcome.told:
        logger.info(line)
    for line in outcome.warnings:
        logger.warning(line)
    more(outcome)
    run = StageRun(step, outcome.changed, time.monotonic() - began)
    return Completed(name="Completed" if run.changed else "Unchanged", data=run, message=f"{run.seconds:.0f} s")


def checks_markdown(checks: Iterable[dict[str, Any]]) -> str:
    """Checks as a table."""
    rows = [
        f"| {check['name']} | {'ok' if check['passed'] else 'note'} | {in_markdown(check['found'])} |"
        for check in checks
    ]
    return "\n".join(["| check | | found |", "| --- | --- | --- |", *rows])


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


def read_events(path: Path, since: str = "") -> list[Event]:
    """Complete lines of events.jsonl; it is being written while it is read.

    Args:
        path: The file; there need be none yet.
        since: Leave out what was said before this time, ISO 8601 in UTC with milliseconds.
    """
    return [event for event in events_so_far(path) if (event.time or "") >= since]
