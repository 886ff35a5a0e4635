"""Run one step of a workflow as a command of its own, so that a policy's memory is given back when it is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from tasks.steps import StageRun
from tasks.streaming import CommandFailed, stream
from zk0.errors import StageError


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
