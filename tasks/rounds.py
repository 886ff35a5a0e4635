"""The rounds of a federation as tasks: each step of each waits for what whoever makes the rounds says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.stop import stoppable
from zk0.context import StageOutcome
from zk0.errors import StageError
from zk0.records.run import Event
from zk0.steps import RoundStep


class Rounds:
    """Rounds that are being made, by a process or a server, as far as is said of them.

    Args:
        said: Events as they are said; it ends when all is over, and raises where the rounds fail.
    """

    def __init__(self, said: Iterator[Event]) -> None:
        self._said = said
        self._heard: list[Event] = []
        self._number = 0

    def next(self) -> int | None:
        """The number of the next round, once it has begun; None when there is none to come."""
        begun = self._first(
            lambda event: event.event == "done" or (event.event == "round-start" and (event.round or 0) > self._number)
        )
        if begun is None or begun.event == "done":
            return None
        self._number = begun.round or 0
        return begun.round

    def wait(self, step: RoundStep, number: int) -> Event:
        """What is said when a step of a round is over.

        Raises:
            StageError: All was over before.
        """
        said = self._first(lambda event: (event.event, event.round) == (step.event, number))
        if said is None:
            raise StageError(f"{step.name}: it ended before round {number} was over")
        return said

    def _first(self, wanted: Callable[[Event], bool]) -> Event | None:
        """The first event that is wanted, said already or still to come: a round is saved while the next one runs."""
        for event in self._heard:
            if wanted(event):
                return event
        with stoppable():
            for event in self._said:
                self._heard.append(event)
                if wanted(event):
                    return event
        return None

    def finish(self) -> None:
        """Wait for what comes after the last round, such as the checkpoints."""
        with stoppable():
            for _ in self._said:
                pass


def run_rounds(
    opened: AbstractContextManager[Iterator[Event]],
    steps: Sequence[RoundStep],
    total: int,
    key: str,
    outcomes: list[StageOutcome],
) -> None:
    """Run what is left of the rounds, each step of each as a task, and note how the steps ended.

    Args:
        opened: Begins the rounds, gives what is said of them, and ends them with its block.
        steps: A round's, in order.
        total: Rounds in all.
        key: Of the artifact that shows the progress.
        outcomes: The flow's steps so far; one of each of a round's is added, with the seconds of all rounds.

    Raises:
        StageError: A step failed, or the rounds were stopped.
    """
    first, last = steps[0], steps[-1]
    done = {step: StageOutcome(step.name, "Unchanged", 0.0) for step in steps}
    tasks = {step: _task(step) for step in steps}
    failed: RoundStep | None = first  # the step that is being made
    artifact: Any = create_progress_artifact(progress=0.0, key=key, description="Rounds completed")
    try:
        with opened as said:
            rounds = Rounds(said)
            while (number := rounds.next()) is not None:
                for step, make in tasks.items():
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


def _task(step: RoundStep) -> Any:
    run_name = f"{step.name}, round {{number}}"

    @task(name=step.name, description=step.about, task_run_name=run_name, cache_policy=NO_CACHE)
    def wait(rounds: Rounds, number: int) -> State[Event]:
        said = rounds.wait(step, number)
        return Completed(data=said, message=said.message)

    return wait


def unchanged_rounds(outcomes: Sequence[StageOutcome], steps: Sequence[RoundStep]) -> bool:
    """Whether all rounds were made before."""
    names = {step.name for step in steps}
    return all(outcome.state == "Unchanged" for outcome in outcomes if outcome.name in names)
