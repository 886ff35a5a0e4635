"""The nine steps of model training as tasks; those of a round wait for what the running training says of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import State

from tasks import rounds
from tasks.steps import FROM_THE_HUB, StageRun, read_events, run_alone, started
from zk0.context import StageOutcome
from zk0.errors import StageError
from zk0.pipeline.summary import comparison_markdown
from zk0.records.files import read
from zk0.records.paths import EVENTS
from zk0.records.results import Evaluation
from zk0.records.run import Event
from zk0.workspaces import ROUND_STEPS, Training

_POLL_S = 0.2
# What in a training's events says that a step of a round is over.
_SAID = dict(zip(ROUND_STEPS, ("local-training", "extract", "train", "save"), strict=True))


class TrainingFailed(StageError):
    """A step's command failed; the message ends with its last lines."""


def _alone(training: Training, step: str, environment: dict[str, str] | None = None) -> State[StageRun]:
    return run_alone(step, _command(training, step), training.root, TrainingFailed, environment)


def _command(training: Training, step: str) -> list[str]:
    return [sys.executable, "-m", "zk0", "train", "--name", training.name, "--only", step]


@task(name="environment setup", cache_policy=NO_CACHE)
def set_up_environment(training: Training) -> State[StageRun]:
    """Check the machine, and what the data and the starting policy are."""
    return _alone(training, "environment setup")


@task(name="model loading", **FROM_THE_HUB)
def load_model(training: Training) -> State[StageRun]:
    """Load the starting policy, from the Hub where it is there."""
    return _alone(training, "model loading")


@task(name="dataset preparation", **FROM_THE_HUB)
def prepare_dataset(training: Training) -> State[StageRun]:
    """Record or find the data, check it, keep some episodes from training."""
    state = _alone(training, "dataset preparation")
    found = (training.folder / "results" / "data.md").read_text()
    create_markdown_artifact(key="data-check", markdown=found, description="What the data is and was taken for")
    return state


@task(name="training configuration", cache_policy=NO_CACHE)
def configure_training(training: Training) -> State[StageRun]:
    """Hold data and policy against each other, and say what will be done."""
    return _alone(training, "training configuration")


# Its evaluation is kept, so a second try only asks MLflow again, which may be busy or, as a server, away.
@task(name="validation", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def validate_model(training: Training, environment: dict[str, str]) -> State[StageRun]:
    """Compare the trained model with its start on held-out episodes, and put the run into MLflow."""
    state = _alone(training, "validation", environment)
    table = comparison_markdown(read(training.folder, Evaluation))
    create_markdown_artifact(key="comparison", markdown=table, description="Starting policy against trained model")
    return state


class Rounds:
    """A training's rounds, made by a process of their own, and what it says of them.

    Args:
        training: Whose.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")  # what was said before is of earlier runs
        self._process = started(_command(training, ROUND_STEPS[0]), training.root)
        self._lines: list[str] = []
        self._last = 0
        logger = get_run_logger()

        def tell() -> None:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if text := line.rstrip():
                    self._lines.append(text)
                    logger.info(text)

        self._reader = threading.Thread(target=tell, daemon=True)
        self._reader.start()

    def next(self) -> int | None:
        """The number of the next round, once it has begun; None when there is none to come.

        Raises:
            TrainingFailed: The process failed; the message ends with its last lines.
        """
        last = self._last
        said = self._wait(lambda e: e.event == "done" or (e.event == "round-start" and e.round > last))
        if said is None or said.event == "done":
            return None
        self._last = said.round or 0
        return self._last

    def wait(self, step: str, number: int) -> Event:
        """What is said when a step of a round is over.

        Raises:
            TrainingFailed: The process ended before.
        """
        said = self._wait(lambda e: e.event == _SAID[step] and e.round == number)
        if said is None:
            raise TrainingFailed(f"{step}: the training ended before round {number} was over")
        return said

    def finish(self) -> None:
        """Wait until the checkpoints are written.

        Raises:
            TrainingFailed: The process failed.
        """
        while self._wait(lambda e: False) is not None:
            pass

    def stop(self, wait_s: float = 60.0) -> None:
        """End the process, if it still runs; complete rounds are saved."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _wait(self, wanted: Any) -> Event | None:
        """The first event that is wanted; None when the process has ended well without it."""
        while True:
            code = self._process.poll()  # asked first: what it said before it ended is then all there
            found = next((e for e in read_events(self.training.folder / EVENTS, self._since) if wanted(e)), None)
            if found is not None or code == 0:
                return found
            if code is not None:
                self._reader.join()
                raise TrainingFailed("\n".join(self._lines[-15:]))
            time.sleep(_POLL_S)


@contextmanager
def rounds_of(training: Training) -> Iterator[Rounds]:
    """Rounds that run while the block does, and are stopped with it."""
    made = Rounds(training)
    try:
        yield made
    finally:
        made.stop()


@task(name="local training", task_run_name="local training, round {number}", cache_policy=NO_CACHE)
def train_locally(made: Rounds, number: int) -> State[Event]:
    """A round's optimiser steps on the own data."""
    return rounds.step_of_round(made, "local training", number)


@task(name="parameter extraction", task_run_name="parameter extraction, round {number}", cache_policy=NO_CACHE)
def extract_parameters(made: Rounds, number: int) -> State[Event]:
    """What the round changed of the tensors that train, encoded as a message."""
    return rounds.step_of_round(made, "parameter extraction", number)


@task(name="server communication", task_run_name="server communication, round {number}", cache_policy=NO_CACHE)
def communicate(made: Rounds, number: int) -> State[Event]:
    """The server has the update, and found it sound."""
    return rounds.step_of_round(made, "server communication", number)


@task(name="model update", task_run_name="model update, round {number}", cache_policy=NO_CACHE)
def update_model(made: Rounds, number: int) -> State[Event]:
    """The server's new model is judged and saved."""
    return rounds.step_of_round(made, "model update", number)


_OF_ROUND = dict(zip(ROUND_STEPS, (train_locally, extract_parameters, communicate, update_model), strict=True))


def run_rounds(training: Training, outcomes: list[StageOutcome]) -> None:
    """Run what is left of a training's rounds; see :func:`tasks.rounds.run_rounds`."""
    total = training.params.federation.rounds
    rounds.run_rounds(lambda: rounds_of(training), _OF_ROUND, total, "training", outcomes)


def unchanged_rounds(outcomes: list[StageOutcome]) -> bool:
    """Whether a training was complete before."""
    return rounds.unchanged_rounds(outcomes, _OF_ROUND)
