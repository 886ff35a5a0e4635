"""Documented steps as Prefect's tasks: how each is named, run, retried, shown and remembered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from zk0.context import StageOutcome, build_context, render_markdown, write_context
from zk0.errors import StageError
from zk0.steps import Asks, Outcome, Step
from zk0.words import in_markdown


def hub_unreachable(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Whether it may go better in a minute: only what the Hub did not give."""
    return "the Hub cannot be reached" in str(state.message)


# How a task is tried again, by what its step asks.
RETRIES: dict[Asks | None, dict[str, Any]] = {
    None: {},
    "hub": {"retries": 2, "retry_delay_seconds": [10, 60], "retry_condition_fn": hub_unreachable},
    "sources": {"retries": 2, "retry_delay_seconds": [10, 60]},
    "service": {"retries": 2, "retry_delay_seconds": [5, 30]},
}


@dataclass
class Steps:
    """Runs the steps of a flow, each as a task of its name.

    Attributes:
        outcomes: How those so far ended; each that is run is added.
        do: How a step is done: in this process, in one of its own, or by DVC.
        show: What is shown of a step besides its log, as an artifact.
    """

    outcomes: list[StageOutcome]
    do: Callable[[Step[..., Any]], Outcome | None]
    show: Mapping[Step[..., Any], Callable[[Outcome], Any]] = field(default_factory=dict)

    def run(self, *steps: Step[..., Any]) -> None:
        """Run steps one after the other; one that fails is remembered, and ends the flow."""
        for step in steps:
            began = time.monotonic()
            state = self._task(step)(return_state=True)
            if not state.is_completed():
                seconds = time.monotonic() - began
                self.outcomes.append(StageOutcome(step.name, "Failed", seconds, step.stage or step.name))
            self.outcomes.append(state.result(raise_on_failure=True))

    def _task(self, step: Step[..., Any]) -> Any:
        @task(name=step.name, description=step.about, cache_policy=NO_CACHE, **RETRIES[step.asks])
        def run() -> State[StageOutcome]:
            began, logger = time.monotonic(), get_run_logger()
            outcome = self.do(step) or Outcome(changed=True)
            for line in outcome.told:
                logger.info(line)
            for line in outcome.warnings:
                logger.warning(line)
            if step in self.show:
                self.show[step](outcome)
            ended = StageOutcome(
                step.name,
                "Completed" if outcome.changed else "Unchanged",
                time.monotonic() - began,
                step.stage or step.name,
            )
            told = outcome.told[-1] if outcome.told else f"{ended.seconds:.0f} s"
            return Completed(name=ended.state, data=ended, message=told)

        return run


def all_unchanged(outcomes: Iterable[StageOutcome]) -> bool:
    """Whether nothing but the validation, which always runs, had to run."""
    return all(outcome.state == "Unchanged" for outcome in outcomes if outcome.stage != "validate")


@contextmanager
def leaves_context(
    root: Path, flow: str, priority: str, keep: Path | None = None, deployed: str = "scheduled"
) -> Iterator[list[StageOutcome]]:
    """Collect how steps end; when the block ends, well or not, write context.json and show it.

    Args:
        root: The folder in which the flow worked: its params and results are told of.
        flow: Its name.
        priority: High, Medium or Low.
        keep: Where context.json goes, if not there.
        deployed: How it was started, in a word, where it was not by hand.
    """
    outcomes: list[StageOutcome] = []
    created = datetime.now(UTC).isoformat(timespec="seconds")
    error: str | None = None
    try:
        yield outcomes
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        context = build_context(
            root,
            flow=flow,
            task_id=str(runtime.flow_run.id or ""),
            parent_id=runtime.flow_run.parent_flow_run_id,
            created=created,
            mode=deployed if runtime.deployment.id else "manual",
            priority=priority,
            outcome="Failed" if error else "Unchanged" if all_unchanged(outcomes) else "Completed",
            stages=outcomes,
            error=error,
        )
        write_context(keep or root, context)
        create_markdown_artifact(
            key="task-context", markdown=render_markdown(context), description=f"Task context of {flow}"
        )


def tells_how_to_go_on(what: str, how: str) -> Any:
    """A hook of a flow for when it fails or crashes: it shows what happened, what is kept and which command goes on."""

    def tell_how_to_go_on(_flow: Any, _flow_run: Any, state: Any) -> None:
        text = f"{what} ended as {state.name}: {in_markdown(str(state.message))}\n\n{how}"
        create_markdown_artifact(key="failure", markdown=text, description="What happened and how to go on")

    return tell_how_to_go_on


def run_name() -> str:
    """A flow run's name: what it does, when, by which deployment, of what and from what.

    ``federate 2026-11-28 nightly from champion``; by hand without the deployment.
    """
    given = runtime.flow_run.parameters
    what = [given.get("study") or given.get("name"), "from champion" if given.get("start") == "champion" else None]
    told = [runtime.flow_run.flow_name, f"{datetime.now(UTC):%Y-%m-%d}", runtime.deployment.name, *what]
    return " ".join(str(word) for word in told if word)


def of_this_flow_run() -> dict[str, str]:
    """Variables that tell a command which flow run it is a part of."""
    return {"ZK0_FLOW_RUN_ID": str(runtime.flow_run.id), "ZK0_FLOW_RUN_NAME": str(runtime.flow_run.name)}


def show_data(folder: Path) -> None:
    """Show what the data is and was taken for, as its check has left it in a project's or an owner's folder."""
    found = (folder / "results" / "data.md").read_text()
    create_markdown_artifact(key="data-check", markdown=found, description="What the data is and was taken for")


def checks_markdown(checks: Iterable[dict[str, str | bool]]) -> str:
    """Checks as a table."""
    rows = [
        f"| {check['name']} | {'ok' if check['passed'] else 'note'} | {in_markdown(str(check['found']))} |"
        for check in checks
    ]
    return "\n".join(["| check | | found |", "| --- | --- | --- |", *rows])


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
            for line in process.stdout:
                text = line.rstrip()
                if text and not text.strip().startswith(leave_out):
                    lines.append(text)
                    logger.info(text)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise CommandFailed(what, process.returncode, lines)
    return lines


def started(
    command: Sequence[str], root: Path, environment: Mapping[str, str] | None = None, without: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a command in a project, its output and errors as one stream of text; as :func:`stream` takes them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**inherited, "PYTHONUNBUFFERED": "1", "COLUMNS": "110", **(environment or {})},
    )
