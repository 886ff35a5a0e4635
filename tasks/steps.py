"""Documented steps as Prefect's tasks: how each is named, run, retried, shown and remembered."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed

from tasks.stop import listen, stoppable
from zk0.context import StageOutcome, build_context, render_markdown, write_context
from zk0.steps import Asks, Outcome, Step
from zk0.words import in_markdown, markdown_table


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
        """Run steps one after the other; one that fails is remembered, and ends the flow.

        Raises:
            KeyboardInterrupt: One was stopped.
        """
        for step in steps:
            with stoppable():  # not begun, where it was stopped before
                began = time.monotonic()
            state = self._task(step)(return_state=True)
            if not state.is_completed():
                seconds = time.monotonic() - began
                stopped = state.is_cancelled()
                ended = StageOutcome(step.name, "Cancelled" if stopped else "Failed", seconds, step.stage or step.name)
                self.outcomes.append(ended)
                if stopped:
                    raise KeyboardInterrupt
            self.outcomes.append(state.result(raise_on_failure=True))

    def _task(self, step: Step[..., Any]) -> Any:
        @task(name=step.name, description=step.about, cache_policy=NO_CACHE, **RETRIES[step.asks])
        def run() -> State[StageOutcome]:
            began, logger = time.monotonic(), get_run_logger()
            logger.info(step.about)
            try:
                with stoppable():
                    outcome = self.do(step) or Outcome(changed=True)
            except KeyboardInterrupt:
                return Cancelled(message="stopped by Ctrl-C")
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
    ended = ""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    error: str | None = None
    try:
        yield outcomes
    except BaseException as problem:
        ended, error = "Failed", f"{type(problem).__name__}: {problem}"
        if isinstance(problem, KeyboardInterrupt):
            ended, error = "Cancelled", "stopped by Ctrl-C"
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
            outcome=ended or ("Unchanged" if all_unchanged(outcomes) else "Completed"),
            stages=outcomes,
            error=error,
        )
        write_context(keep or root, context)
        create_markdown_artifact(
            key="task-context", markdown=render_markdown(context), description=f"Task context of {flow}"
        )


@dataclass(frozen=True)
class WayOn:
    """What is kept of a flow that did not come to its end, and which command goes on.

    Attributes:
        what: Ended.
        how: It goes on, in sentences.
    """

    what: str
    how: str

    def show(self, flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ARG002 - by these names Prefect gives them
        """Show what happened, as an artifact: a hook of a flow that fails or crashes."""
        text = f"{self.what} ended as {state.name}: {in_markdown(str(state.message))}\n\n{self.how}"
        create_markdown_artifact(key="failure", markdown=text, description="What happened and how to go on")

    def after_a_stop[**P](self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Let a flow that is stopped by Ctrl-C end as Cancelled, where Prefect would call it a crash."""

        @wraps(function)
        def run(*given: P.args, **named: P.kwargs) -> Any:
            try:
                return function(*given, **named)
            except KeyboardInterrupt:
                return Cancelled(message=f"{self.what} was stopped. {self.how}")

        # Prefect makes a form of the parameters, and would look for their types' names here.
        vars(run)["__signature__"] = inspect.signature(function, eval_str=True)
        run.__annotations__ = inspect.get_annotations(function, eval_str=True)
        return run


def by_hand(flow: Any) -> NoReturn:
    """Run a flow as a command: Prefect has told how it ended, and the exit status says it once more."""
    listen()
    state = flow(return_state=True)
    sys.exit(0 if state.is_completed() else 130 if state.is_cancelled() else 1)


def run_name() -> str:
    """A flow run's name: what it does, when, by which deployment and of what.

    ``federate 2026-11-28 nightly``; by hand without the deployment.
    """
    given = runtime.flow_run.parameters
    what = given.get("study") or given.get("name")
    told = [runtime.flow_run.flow_name, f"{datetime.now(UTC):%Y-%m-%d}", runtime.deployment.name, what]
    return " ".join(str(word) for word in told if word)


def rename_flow_run(told: str) -> str:
    """Add to a flow run's name what is known only once it runs, as in ``federate 2026-11-28 nightly from champion 3``.

    Returns:
        The new name.
    """
    name = f"{run_name()} {told}"
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, name=name)
    return name


def of_this_flow_run() -> dict[str, str]:
    """Variables that tell a command which flow run it is a part of."""
    return {"ZK0_FLOW_RUN_ID": str(runtime.flow_run.id), "ZK0_FLOW_RUN_NAME": str(runtime.flow_run.name)}


def show_data(folder: Path) -> None:
    """Show what the data is and was taken for, as its check has left it in a project's or an owner's folder."""
    found = (folder / "results" / "data.md").read_text()
    create_markdown_artifact(key="data-check", markdown=found, description="What the data is and was taken for")


def checks_markdown(checks: Iterable[dict[str, str | bool]]) -> str:
    """Checks as a table."""
    rows = [(str(one["name"]), "ok" if one["passed"] else "note", str(one["found"])) for one in checks]
    return markdown_table(("check", "", "found"), rows)
