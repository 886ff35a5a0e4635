"""A step that leaves an outcome, as a task's work: lines in the run's log, and a state by what it changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from prefect.logging import get_run_logger
from prefect.states import Completed, State

from tasks.steps import StageRun
from zk0.checks import Outcome
from zk0.words import in_markdown


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
