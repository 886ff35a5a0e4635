"""The rounds of a federation as tasks: each step of each waits for what whoever makes the rounds says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.states import Completed, State

from zk0.context import StageOutcome
from zk0.records.run import Event


class Rounds(Protocol):
    """Rounds that are being made, by a process or a server, and what is said of them."""

    def next(self) -> int | None:
        """The number of the next round, once it has begun; None when there is none to come."""

    def wait(self, step: str, number: int) -> Event:
        """What is said when a step of a round is over."""

    def finish(self) -> None:
        """Wait for what comes after the last round."""


def step_of_round(rounds: Rounds, step: str, number: int) -> State[Event]:
    """A task's work: wait until a step of a round is over, and tell what was said."""
    said = rounds.wait(step, number)
    return Completed(data=said, message=said.message)


def run_rounds(
    opened: Callable[[], AbstractContextManager[Rounds]],
    steps: Mapping[str, Callable[[Any, int], Any]],
    total: int,
    key: str,
    outcomes: list[StageOutcome],
) -> None:
    """Run what is left of the rounds, each step of each as a task, and note how the steps ended.

    Args:
        opened: Begins the rounds, and ends them with its block.
        steps: A round's, in order: name and task.
        total: Rounds in all.
        key: Of the artifact that shows the progress.
        outcomes: The flow's steps so far; one of each of a round's is added, with the seconds of all rounds.

    Raises:
        StageError: A step failed, or the rounds were stopped.
    """
    first, *_, last = steps
    done = {step: StageOutcome(step, "Unchanged", 0.0) for step in steps}
    failed: str | None = first  # the step that is being made
    artifact: Any = create_progress_artifact(progress=0.0, key=key, description="Rounds completed")
    try:
        with opened() as rounds:
            while (number := rounds.next()) is not None:
                for step, make in steps.items():
                    failed, began = step, time.monotonic()
                    make(rounds, number)
                    spent = done[step].seconds + time.monotonic() - began
                    done[step] = replace(done[step], state="Completed", seconds=spent)
                failed = first
                update_progress_artifact(artifact, progress=min(100.0, 100.0 * number / total))
            failed = last
            rounds.finish()
        failed = None
        update_progress_artifact(artifact, progress=100.0)
    finally:
        for step, outcome in done.items():
            ended = replace(outcome, state="Failed") if step == failed else outcome
            # The pipeline's stage is the steps together: whichever failed, or the last.
            outcomes.append(replace(ended, stage="federate") if step == (failed or last) else ended)
            if step == failed:
                break


def unchanged_rounds(outcomes: list[StageOutcome], steps: Mapping[str, Any]) -> bool:
    """Whether all rounds were made before."""
    return all(outcome.state == "Unchanged" for outcome in outcomes if outcome.name in steps)
