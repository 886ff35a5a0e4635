"""Leave a task context behind when a flow ends, as a file and as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State

from tasks.steps import StageRun
from zk0.context import StageOutcome, build_context, render_markdown, write_context


@dataclass
class Steps:
    """The steps of a flow so far."""

    outcomes: list[StageOutcome] = field(default_factory=list)

    def run(self, step: str, stage: str, call: Callable[[], State[Any]]) -> StageRun:
        """Run a task, remember how it ended, and go on with its failure if it failed.

        Args:
            step: The task's name.
            stage: The stage it runs.
            call: Runs it with ``return_state=True``.
        """
        began = datetime.now(UTC)
        state = call()
        if not state.is_completed():
            self.outcomes.append(StageOutcome(step, "Failed", (datetime.now(UTC) - began).total_seconds(), stage))
            state.result(raise_on_failure=True)
        run: StageRun = state.result()
        self.outcomes.append(StageOutcome(step, "Completed" if run.changed else "Unchanged", run.seconds, stage))
        return run

    @property
    def all_unchanged(self) -> bool:
        """Whether nothing but the validation, which always runs, had to run."""
        return all(outcome.state == "Unchanged" for outcome in self.outcomes if outcome.stage != "validate")


@contextmanager
def leaves_context(root: Path, flow: str, mode: str, priority: str, keep: Path | None = None) -> Iterator[Steps]:
    """Collect steps; when the block ends, well or not, write context.json and show it.

    Args:
        root: The folder in which the flow worked: its params and results are told of.
        flow: Its name.
        mode: How it was started.
        priority: High, Medium or Low.
        keep: Where context.json goes, if not there.
    """
    steps, created = Steps(), datetime.now(UTC).isoformat(timespec="seconds")
    error: str | None = None
    try:
        yield steps
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        outcome = "Failed" if error else "Unchanged" if steps.all_unchanged else "Completed"
        context = build_context(
            root,
            flow=flow,
            task_id=str(runtime.flow_run.id or ""),
            parent_id=runtime.flow_run.parent_flow_run_id,
            created=created,
            mode=mode,
            priority=priority,
            outcome=outcome,
            stages=steps.outcomes,
            error=error,
        )
        write_context(keep or root, context)
        create_markdown_artifact(
            key="task-context", markdown=render_markdown(context), description=f"Task context of {flow}"
        )
