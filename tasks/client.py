"""How the eight steps of a client's set-up are run: in processes of their own; those of the rounds are waited for."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from tasks.commands import stream
from tasks.steps import Steps, show_data
from zk0.context import StageOutcome
from zk0.network.client.steps import JOINING, Awaited, is_connected, monitor, partition_dataset
from zk0.steps import Outcome, Step
from zk0.words import markdown_table


def steps_of(awaited: Awaited, outcomes: list[StageOutcome]) -> Steps:
    """The steps by which a site takes part; nothing is to be done for it where it takes part already."""
    membership = awaited.membership

    def do(step: Step[..., Outcome | None]) -> Outcome | None:
        if step not in JOINING:
            return step(awaited)
        if is_connected(membership):
            return Outcome(False, ("it takes part already",))
        stream(step.name, ["-m", "zk0", "client", "step", membership.name, step.name], membership.root)
        return None

    return Steps(outcomes, do, {partition_dataset: lambda _: show_data(membership.folder), monitor: _show_site})


def _show_site(outcome: Outcome) -> None:
    table = markdown_table(("", ""), outcome.facts["rows"])
    create_markdown_artifact(key="site", markdown=table, description="The site's part in the federation")
