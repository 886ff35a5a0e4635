"""The eight steps of a server as tasks; those of a round wait for what the running federation says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import State

from tasks import rounds
from tasks.steps import StageRun, checks_markdown, recorded
from zk0.checks import Outcome
from zk0.context import StageOutcome
from zk0.network.server import ROUND_STEPS
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import halt
from zk0.network.server.session import prepare
from zk0.network.server.steps import ALONE, Serving
from zk0.records.files import rounds_so_far
from zk0.records.run import Event
from zk0.words import in_markdown


def _alone(serving: Serving, step: str, more: Callable[[Outcome], None] = lambda outcome: None) -> State[StageRun]:
    return recorded(step, lambda: ALONE[step](serving), more)


@task(name="Flower server initialization", cache_policy=NO_CACHE)
def initialise_server(serving: Serving) -> State[StageRun]:
    """SuperLink, SuperExec and gateway run, and the starting policy is found."""
    return _alone(serving, "Flower server initialization")


@task(name="strategy selection", cache_policy=NO_CACHE)
def select_strategy(serving: Serving) -> State[StageRun]:
    """Which strategy combines the updates, and whether there are sites enough for it."""
    return _alone(serving, "strategy selection")


@task(name="client registration", cache_policy=NO_CACHE)
def register_clients(serving: Serving) -> State[StageRun]:
    """The SuperLink knows the admitted sites' keys, and their nodes are awaited."""
    return _alone(serving, "client registration")


@task(name="performance monitoring", cache_policy=NO_CACHE)
def monitor_performance(serving: Serving) -> State[StageRun]:
    """How the model converged, and what each round cost, here and as a table."""

    def show(outcome: Outcome) -> None:
        lines = ["| round | held-out loss | seconds | up | down | left out |", "| --: | --: | --: | --: | --: | --- |"]
        for row in rounds_so_far(serving.server.root):
            seconds = "" if row.round_s is None else f"{row.round_s:.1f}"
            megabytes = " | ".join(f"{size / 1e6:.1f} MB" for size in (row.bytes_up, row.bytes_down))
            left_out = in_markdown("; ".join(f"{site}: {why}" for site, why in row.left_out.items()))
            lines.append(f"| {row.round} | {row.held_out_loss:.4f} | {seconds} | {megabytes} | {left_out} |")
        create_markdown_artifact(key="rounds", markdown="\n".join(lines), description="The federation's rounds")

    return _alone(serving, "performance monitoring", show)


@task(name="security validation", cache_policy=NO_CACHE)
def validate_security(serving: Serving) -> State[StageRun]:
    """The checklist of what protects the federation, here and as a table."""

    def show(outcome: Outcome) -> None:
        table = checks_markdown(outcome.facts["checks"])
        create_markdown_artifact(key="security", markdown=table, description="Security of the federation")

    return _alone(serving, "security validation", show)


class Rounds:
    """A federation's rounds, made by the ServerApp, and what it says of them.

    Args:
        serving: Which is to be run.
    """

    def __init__(self, serving: Serving) -> None:
        prepare(serving.server)
        since = datetime.now(UTC)
        self.serving = serving
        self.number = submit(serving.server, **serving.settings)
        self._events = watch(serving.server, self.number, since)
        self._last: Event = Event(event="", round=-1)

    def next(self) -> int | None:
        """The number of the next round, once it has begun; None when there is none to come.

        Raises:
            StageError: The run failed, or was stopped.
        """
        return next((said.round or 0 for said in self._said() if said.event == "round-start"), None)

    def wait(self, step: str, number: int) -> Event:
        """What is said when a step of a round is over.

        Raises:
            StageError: The run failed, or was stopped.
        """
        over = ROUND_STEPS[step]
        if (self._last.event, self._last.round) == (over, number):
            return self._last
        return next(said for said in self._said() if said.event == over and said.round == number)

    def finish(self) -> None:
        """Nothing is to be waited for: what :meth:`next` finds last is said after everything is written."""

    def _said(self) -> Iterator[Event]:
        for event in self._events:
            get_run_logger().info(event.message)
            self._last = event
            yield event


@contextmanager
def rounds_of(serving: Serving) -> Iterator[Rounds]:
    """Rounds that are stopped, and can be taken up again, when the block does not end well."""
    made = Rounds(serving)
    try:
        yield made
    except BaseException:
        halt(serving.server)
        raise


@task(name="round orchestration", task_run_name="round orchestration, round {number}", cache_policy=NO_CACHE)
def orchestrate_round(made: Rounds, number: int) -> State[Event]:
    """The sites have got their tasks, and have trained or were left out."""
    return rounds.step_of_round(made, "round orchestration", number)


@task(name="parameter aggregation", task_run_name="parameter aggregation, round {number}", cache_policy=NO_CACHE)
def aggregate(made: Rounds, number: int) -> State[Event]:
    """Their updates are combined."""
    return rounds.step_of_round(made, "parameter aggregation", number)


@task(name="model distribution", task_run_name="model distribution, round {number}", cache_policy=NO_CACHE)
def distribute(made: Rounds, number: int) -> State[Event]:
    """The sites have the new model, and have judged it."""
    return rounds.step_of_round(made, "model distribution", number)


_OF_ROUND = dict(zip(ROUND_STEPS, (orchestrate_round, aggregate, distribute), strict=True))


def run_rounds(serving: Serving, outcomes: list[StageOutcome]) -> None:
    """Run what is left of a federation's rounds; see :func:`tasks.rounds.run_rounds`."""
    total = serving.params.federation.rounds
    rounds.run_rounds(lambda: rounds_of(serving), _OF_ROUND, total, "federation", outcomes)


def unchanged_rounds(outcomes: list[StageOutcome]) -> bool:
    """Whether the federation was complete before."""
    return rounds.unchanged_rounds(outcomes, _OF_ROUND)
