"""How the eight steps of a server are run: here, those of a round by what the running federation says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.steps import Steps, checks_markdown
from zk0.context import StageOutcome
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import halt
from zk0.network.server.steps import Serving, monitor, prepare, validate_security
from zk0.records.files import rounds_so_far
from zk0.records.run import Event
from zk0.steps import Outcome
from zk0.words import markdown_table


def steps_of(serving: Serving, outcomes: list[StageOutcome]) -> Steps:
    """The steps of a server; its rounds and the checklist of its security are shown as tables."""

    def show_rounds(_: Outcome) -> None:
        rows = [
            (
                str(row.round),
                f"{row.held_out_loss:.4f}",
                "" if row.round_s is None else f"{row.round_s:.1f}",
                *(f"{size / 1e6:.1f} MB" for size in (row.bytes_up, row.bytes_down)),
                "; ".join(f"{site}: {why}" for site, why in row.left_out.items()),
            )
            for row in rounds_so_far(serving.server.root)
        ]
        table = markdown_table(("round", "held-out loss", "seconds", "up", "down", "left out"), rows, figures=range(5))
        create_markdown_artifact(key="rounds", markdown=table, description="The federation's rounds")

    def show_checks(outcome: Outcome) -> None:
        table = checks_markdown(outcome.facts["checks"])
        create_markdown_artifact(key="security", markdown=table, description="Security of the federation")

    return Steps(outcomes, lambda step: step(serving), {monitor: show_rounds, validate_security: show_checks})


@contextmanager
def rounds_of(serving: Serving) -> Iterator[Iterator[Event]]:
    """What is said of a federation's rounds; they are stopped, to be taken up again, if the block does not end well.

    Raises:
        StageError: As what is said is asked for: the run failed, or was stopped.
    """
    prepare(serving.server)
    since = datetime.now(UTC)
    number = submit(serving.server, **serving.settings)

    def said() -> Iterator[Event]:
        for event in watch(serving.server, number, since):
            get_run_logger().info(event.message)
            yield event

    try:
        yield said()
    except BaseException:
        halt(serving.server)
        raise
