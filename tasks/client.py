"""The eight steps of a client's set-up as tasks; those of the rounds wait for what the site's journal says of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from tasks.steps import FROM_THE_HUB, StageRun, run_alone
from zk0.errors import StageError
from zk0.network.client import steps
from zk0.network.client.membership import Membership
from zk0.network.client.status import site_status


class SiteFailed(StageError):
    """A step's command failed; the message ends with its last lines."""


def _alone(membership: Membership, step: str) -> State[StageRun]:
    """Run one step, unless the site takes part already: then nothing is to be done for it."""
    if steps.is_connected(membership):
        return Completed(name="Unchanged", message="it takes part already", data=StageRun(step, False, 0.0))
    command = [sys.executable, "-m", "zk0", "client", "step", membership.name, step]
    return run_alone(step, command, membership.root, SiteFailed)


@task(name="dependency installation", **FROM_THE_HUB)
def install_dependencies(membership: Membership) -> State[StageRun]:
    """Check this machine and its packages, and what the data and the starting policy are."""
    return _alone(membership, "dependency installation")


@task(name="Flower client initialization", cache_policy=NO_CACHE)
def initialise_client(membership: Membership) -> State[StageRun]:
    """Hold key and invitation against each other, and see that the ClientApp loads."""
    return _alone(membership, "Flower client initialization")


@task(name="dataset partitioning", **FROM_THE_HUB)
def partition_dataset(membership: Membership) -> State[StageRun]:
    """Record or find the data, check it, keep some episodes from training."""
    state = _alone(membership, "dataset partitioning")
    found = (membership.folder / "results" / "data.md").read_text()
    create_markdown_artifact(key="data-check", markdown=found, description="What the data is and was taken for")
    return state


@task(name="model configuration", **FROM_THE_HUB)
def configure_model(membership: Membership) -> State[StageRun]:
    """Load the starting policy, hold it against the data, compute what is constant of the frames."""
    return _alone(membership, "model configuration")


# The server may be away for a minute, as when its operator restarts it.
@task(name="server connection", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def connect(membership: Membership) -> State[StageRun]:
    """Start trainer and SuperNode, and wait until the server has let the node in."""
    return _alone(membership, "server connection")


@task(name="training loop", cache_policy=NO_CACHE)
def train_in_rounds(membership: Membership, rounds: int, since: str, wait_s: float) -> State[StageRun]:
    """Wait until the site has trained in so many rounds, which it is the server's to begin."""
    return _waited(
        "training loop",
        lambda: steps.wait_for_rounds(membership, rounds, since, wait_s, judged=False),
        lambda part: f"trained in {len(part.rounds)} rounds",
    )


@task(name="parameter synchronization", cache_policy=NO_CACHE)
def synchronise(membership: Membership, rounds: int, since: str, wait_s: float) -> State[StageRun]:
    """Wait until the updates have left, and the models that came of them were received and judged."""

    def told(part: steps.Part) -> str:
        up, down = (sum(one[key] for one in part.rounds) for key in ("bytes_up", "bytes_down"))
        return f"{up:,} bytes of updates sent, {down:,} bytes of models received"

    return _waited(
        "parameter synchronization",
        lambda: steps.wait_for_rounds(membership, rounds, since, wait_s, judged=True),
        told,
    )


@task(name="logging and monitoring", cache_policy=NO_CACHE)
def monitor(membership: Membership, since: str) -> State[StageRun]:
    """Write what the site did, and show it with where its logs are."""
    began = time.monotonic()
    summary = steps.summarise(membership, steps.part_since(membership, since))
    rows = "\n".join(f"| {what} | {found} |" for what, found in site_status(membership).rows())
    create_markdown_artifact(
        key="site", markdown=f"| | |\n| --- | --- |\n{rows}\n", description="The site's part in the federation"
    )
    run = StageRun("logging and monitoring", True, time.monotonic() - began)
    return Completed(data=run, message=summary["state"])


def _waited(step: str, wait: Callable[[], Any], told: Callable[[Any], str]) -> State[StageRun]:
    began = time.monotonic()
    part = wait()
    return Completed(data=StageRun(step, True, time.monotonic() - began), message=told(part))
