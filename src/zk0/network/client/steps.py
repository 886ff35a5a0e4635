"""site: the eight steps by which a robot owner takes part in a federation over a network.

Each step imports what it needs when it runs: as a task of the flow it has a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zk0.console import console
from zk0.errors import StageError
from zk0.network.client.membership import Membership, removed_if_refused

SUMMARY = Path("results/site/summary.json")
_POLL_S = 0.5


def join(membership: Membership) -> None:
    """Take the five steps up to the connection.

    Raises:
        StageError: A step refused; a first joining leaves nothing behind.
    """
    with removed_if_refused(membership):
        for number, (step, take) in enumerate(ALONE.items(), start=1):
            console.print(f"{number} of 8: {step}", style="bold", markup=False)
            take(membership)


def install_dependencies(membership: Membership) -> None:
    """Check this machine and its packages; note what the data and the starting policy are at this moment."""
    from zk0.pipeline import validate

    validate.run(membership.folder, membership.params)


def initialise_client(membership: Membership) -> None:
    """Hold key and invitation against each other, and see that the ClientApp loads.

    Raises:
        StageError: The key is not the one that was admitted.
    """
    from zk0.network.client.app import app

    invitation = membership.invitation
    invitation.check(membership.key)
    console.print(
        f"site '{invitation.site}', number {invitation.partition} in the federation '{invitation.federation}' at "
        f"{invitation.server}; its {type(app).__module__}:app is Flower's ClientApp here\n"
        f"the federation's authority is {invitation.authority_fingerprint}: compare it with the operator's, by phone",
        markup=False,
    )


def partition_dataset(membership: Membership) -> None:
    """Record or find the data, check it, keep some episodes from training; the site has the number it was given."""
    from zk0.data.manifest import read_manifests, write_manifest
    from zk0.pipeline import prepare

    prepare.run(membership.folder, membership.params)
    (manifest,), _ = read_manifests(membership.folder)
    numbered = manifest.model_copy(update={"partition": membership.invitation.partition})
    write_manifest(membership.folder, numbered)
    console.print(
        f"{manifest.train_frames} frames to train on and {manifest.held_out_frames} held out stay on this machine",
        markup=False,
    )


def configure_model(membership: Membership) -> None:
    """Load the starting policy, hold it against the data, and compute what is constant of the frames ahead of time.

    Raises:
        FederationError: The policy does not know the data's cameras.
        StageError: There is no room for the features.
    """
    import torch

    from zk0.data.manifest import read_manifests
    from zk0.federation.discovery import check_cameras
    from zk0.federation.run import locked_base
    from zk0.pipeline import features
    from zk0.policy.features.regime import regime
    from zk0.policy.start import load_start

    params = membership.params
    torch.set_num_threads(params.threads)
    sites, _ = read_manifests(membership.folder)
    base, digest = locked_base(membership.folder)
    loaded = load_start(membership.folder, base, params.policy.device)
    check_cameras([site.summary() for site in sites], loaded, params.data.missing_cameras)
    console.print(f"{base} at {digest[:12]} on {loaded.policy.config.device}", markup=False)
    if params.features.cache == "off" or not regime(loaded.policy).tokens:
        console.print("features of frames are not kept: videos are decoded and encoded while it trains", markup=False)
        return
    features.build(membership.folder, params)


def connect(membership: Membership) -> None:
    """Start trainer and SuperNode, and wait until the server has let the node in.

    Raises:
        StageError: The server does not answer, is another, or refuses the site.
    """
    from zk0.network.client.node import check_server

    check_server(membership.invitation)
    start(membership)


def is_connected(membership: Membership) -> bool:
    """Whether the site's services run, so that nothing is to be done for it to take part."""
    from zk0.network.client.node import NAMES

    return set(NAMES) <= set(membership.services.running())


def start(membership: Membership) -> None:
    """Start the site's services, whether the server answers at this moment or not.

    Raises:
        StageError: See :func:`zk0.network.client.node.start_node`.
    """
    from zk0.network.client.node import start_node

    number, site = start_node(membership), membership.invitation.site
    if number is None:
        console.print(f"site '{site}' is not connected yet; it goes on trying: `zk0 client status`", markup=False)
        return
    console.print(f"site '{site}' is connected as node {number}", style="bold green", markup=False)
    console.print("it takes part in every run, in the background: `zk0 client status`", markup=False)


@dataclass(frozen=True)
class Part:
    """A site's part in the rounds since some moment.

    Attributes:
        rounds: In which it trained: run, round, loss, seconds, bytes both ways, and whether it has judged the model
            that came of the round.
        failures: What it could not do.
    """

    rounds: list[dict[str, Any]]
    failures: list[str]


def wait_for_rounds(membership: Membership, rounds: int, since: str, wait_s: float, judged: bool) -> Part:
    """Wait until the site has trained in so many rounds.

    Args:
        membership: Whose.
        rounds: How many.
        since: Rounds from this time on count, ISO 8601 in UTC with milliseconds.
        wait_s: For how long.
        judged: Whether to wait for the models that came of the rounds as well, until the site has judged them.

    Raises:
        StageError: A service ended for good, or it took too long; says how far it came.
    """
    from zk0.network.client.node import NAMES

    deadline = time.monotonic() + wait_s
    while True:
        given_up = membership.services.given_up()  # asked first: what they did before they ended is then all there
        part = part_since(membership, since)
        done = sum(one["judged"] for one in part.rounds) if judged else len(part.rounds)
        if done >= rounds:
            return part
        what = "judged what came of" if judged else "trained in"
        told = f"site '{membership.invitation.site}' has {what} {done} of {rounds} rounds"
        if given_up or not membership.services.known():
            ended = (given_up or NAMES)[0]
            raise StageError(f"{told}, and {ended} ended:\n{membership.services.tail(ended)}")
        if time.monotonic() >= deadline:
            raise StageError(f"{told} after {wait_s:.0f} s; it is the operator who starts runs, with `zk0 server run`")
        time.sleep(_POLL_S)


def part_since(membership: Membership, since: str) -> Part:
    """The site's part in the rounds since a time, see :func:`wait_for_rounds`."""
    from zk0.network.client.membership import EVENTS
    from zk0.records.files import events_so_far

    events = [event for event in events_so_far(membership.folder / EVENTS) if (event.time or "") >= since]
    found: dict[tuple[str | None, int | None], dict[str, Any]] = {}
    for event in events:
        key = (event.run, event.round)
        if event.event == "train" and event.train_loss is not None:
            kept = {"run", "round", "train_loss", "train_s", "seconds", "bytes_up", "bytes_down"}
            found[key] = event.model_dump(include=kept) | {"judged": False}
        elif event.event == "evaluate" and event.held_out_loss is not None and key in found:
            found[key] |= {"judged": True, "held_out_loss": event.held_out_loss}
            found[key]["bytes_down"] += event.bytes_down or 0
    failures = [str(event.message) for event in events if event.event in ("failed", "lost")]
    return Part(list(found.values()), failures)


def summarise(membership: Membership, part: Part) -> dict[str, Any]:
    """Write what the site did, and where its logs are, to ``results/site/summary.json``."""
    from zk0.files import write_json
    from zk0.network.client.status import site_status

    status = site_status(membership)
    content = {
        "site": membership.invitation.site,
        "federation": membership.invitation.federation,
        "connected": status.connected,
        "state": status.state,
        **asdict(part),
        "logs": {name: str(path) for name, path in status.logs.items()},
    }
    write_json(membership.folder / SUMMARY, content)
    return content


# Those that can run by themselves, in order. The other three are the rounds', which it is the server's to begin.
ALONE: dict[str, Callable[[Membership], None]] = {
    "dependency installation": install_dependencies,
    "Flower client initialization": initialise_client,
    "dataset partitioning": partition_dataset,
    "model configuration": configure_model,
    "server connection": connect,
}
ROUND_STEPS = ("training loop", "parameter synchronization", "logging and monitoring")
