"""How the nine steps of model training are run: in processes of their own, the rounds' by what theirs says of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.commands import CommandFailed, end_command, started, stream
from tasks.steps import Steps, of_this_flow_run, show_data
from zk0.context import StageOutcome
from zk0.pipeline.summary import comparison_markdown
from zk0.records.files import EventsAsTheyCome, read
from zk0.records.paths import EVENTS
from zk0.records.results import Evaluation
from zk0.records.run import Event
from zk0.steps import Step
from zk0.workspaces import training as steps
from zk0.workspaces.folder import Training

_POLL_S = 0.2


def steps_of(training: Training, outcomes: list[StageOutcome]) -> Steps:
    """The steps of a training, each by its command; what the data was taken for and the comparison are shown."""
    environment = of_this_flow_run()

    def do(step: Step[[Training], None]) -> None:
        stream(step.name, _command(training, step), training.root, environment=environment)

    def show_comparison() -> None:
        table = comparison_markdown(read(training.folder, Evaluation))
        create_markdown_artifact(key="comparison", markdown=table, description="Starting policy against trained model")

    show = {
        steps.prepare_dataset: lambda _: show_data(training.folder),
        steps.validate_model: lambda _: show_comparison(),
    }
    return Steps(outcomes, do, show)


def _command(training: Training, step: Step[[Training], None]) -> list[str]:
    return ["-m", "zk0", "train", "--name", training.name, "--only", step.name]


@contextmanager
def rounds_of(training: Training) -> Iterator[Iterator[Event]]:
    """What is said of a training's rounds, which a process makes while the block runs; complete rounds are saved.

    Raises:
        CommandFailed: As what is said is asked for: the process failed; the message ends with its last lines.
    """
    since = datetime.now(UTC).isoformat(timespec="milliseconds")  # what was said before is of earlier runs
    lines: list[str] = []
    logger = get_run_logger()
    with started(_command(training, steps.train), training.root) as process:

        def tell() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if text := line.rstrip():
                    lines.append(text)
                    logger.info(text)

        def said() -> Iterator[Event]:
            told: set[str] = set()
            with EventsAsTheyCome(training.folder / EVENTS) as events:
                while True:
                    status = process.poll()  # asked first: what it said before it ended is then all there
                    for event in events.more():
                        if (event.time or "") >= since and repr(event) not in told:
                            told.add(repr(event))
                            yield event
                    if status == 0:
                        return
                    if status is not None:
                        reader.join()
                        raise CommandFailed(steps.train.name, status, lines)
                    time.sleep(_POLL_S)

        reader = threading.Thread(target=tell, daemon=True)
        reader.start()
        try:
            yield said()
        finally:
            end_command(process)
            reader.join()
