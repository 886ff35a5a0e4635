"""client: the eight steps by which a robot owner takes part in a federation over a network."""

from __future__ import annotations

import time
from dataclasses import dataclass

from zk0.console import console
from zk0.data.manifest import read_manifests, write_manifest
from zk0.errors import StageError
from zk0.files import write_json
from zk0.network.client.app import app
from zk0.network.client.membership import EVENTS, Membership
from zk0.network.client.node import NAMES, check_server, start_node
from zk0.network.client.status import site_status
from zk0.pipeline import prepare, validate
from zk0.records.files import events_so_far
from zk0.records.paths import SITE_SUMMARY
from zk0.records.results import SiteSummary, SiteTurn
from zk0.steps import Outcome, Step, names_of, run_steps, step

_POLL_S = 0.5


def join(membership: Membership) -> None:
    """Take the five steps up to the connection.

    Raises:
        StageError: A step refused; a first joining leaves nothing behind.
    """
    with membership.removed_if_refused():
        run_steps(STEPS, lambda one: one(membership), only=names_of(JOINING))


@step("dependency installation", stage="validate", asks="hub")
def install_dependencies(membership: Membership) -> None:
    """Check this machine and its packages; note what the data and the starting policy are at this moment."""
    validate.run(membership.folder, membership.params)


# The server may be away for a minute, as when its operator restarts it.
@step("Flower client initialization", asks="service")
def initialise_client(membership: Membership) -> None:
    """Hold key and invitation against each other, ask whether the server is there, and see that the ClientApp loads.

    Before anything is recorded or computed, which may take long.

    Raises:
        StageError: The key is not the one that was admitted, or the server does not answer, or is another.
    """
    invitation = membership.invitation
    invitation.check(membership.key)
    check_server(invitation)
    console.print(
        f"site '{invitation.site}', number {invitation.partition} in the federation '{invitation.federation}' at "
        f"{invitation.server}; its {type(app).__module__}:app is Flower's ClientApp here\n"
        f"the federation's authority is {invitation.authority_fingerprint}: compare it with the operator's, by phone",
        markup=False,
    )


@step("dataset partitioning", stage="prepare", asks="hub")
def partition_dataset(membership: Membership) -> None:
    """Record or find the data, check it, keep some episodes from training; the site has the number it was given."""
    prepare.run(membership.folder, membership.params)
    (manifest,), _ = read_manifests(membership.folder)
    numbered = manifest.model_copy(update={"partition": membership.invitation.partition})
    write_manifest(membership.folder, numbered)
    console.print(
        f"{manifest.train_frames} frames to train on and {manifest.held_out_frames} held out stay on this machine",
        markup=False,
    )


@step("model configuration", asks="hub")
def configure_model(membership: Membership) -> None:
    """Load the starting policy, hold it against the data, and compute what is constant of the frames ahead of time.

    Raises:
        FederationError: The policy does not know the data's cameras.
        StageError: There is no room for the features.
    """
    # Slow to import, and `zk0 client start` does without.
    import torch

    from zk0.federation.discovery import check_cameras
    from zk0.federation.start import locked_base
    from zk0.pipeline import features
    from zk0.policy.features.backbone import regime
    from zk0.policy.start import load_start

    params = membership.params
    torch.set_num_threads(params.threads)
    sites, _ = read_manifests(membership.folder)
    base, digest = locked_base(membership.folder)
    loaded = load_start(membership.folder, base, params.policy.device)
    check_cameras(sites, loaded, params.data.missing_cameras)
    console.print(f"{base} at {digest[:12]} on {loaded.policy.config.device}", markup=False)
    if params.features.cache == "off" or not regime(loaded.policy).tokens:
        console.print("features of frames are not kept: videos are decoded and encoded while it trains", markup=False)
        return
    features.build(membership.folder, params)


@step("server connection", asks="service")
def connect(membership: Membership) -> None:
    """Start trainer and SuperNode, and wait until the server has let the node in.

    Raises:
        StageError: The server does not answer, is another, or refuses the site.
    """
    check_server(membership.invitation)
    start(membership)


def is_connected(membership: Membership) -> bool:
    """Whether the site's services run, so that nothing is to be done for it to take part."""
    return set(NAMES) <= set(membership.services.running())


def start(membership: Membership) -> None:
    """Start the site's services, whether the server answers at this moment or not.

    Raises:
        StageError: See :func:`zk0.network.client.node.start_node`.
    """
    number, site = start_node(membership), membership.invitation.site
    if number is None:
        console.print(f"site '{site}' is not connected yet; it goes on trying: `zk0 client status`", markup=False)
        return
    console.print(f"site '{site}' is connected as node {number}", style="bold green", markup=False)
    console.print("it takes part in every run, in the background: `zk0 client status`", markup=False)


@dataclass(frozen=True)
class Awaited:
    """The rounds that a site is waited for to take part in, which it is the server's to begin.

    Attributes:
        membership: Whose.
        rounds: How many.
        since: Rounds from this time on count, ISO 8601 in UTC with milliseconds.
        wait_s: For how long.
    """

    membership: Membership
    rounds: int
    since: str
    wait_s: float


@step("training loop")
def train_in_rounds(awaited: Awaited) -> Outcome:
    """Wait until the site has trained in so many rounds, which it is the server's to begin.

    Raises:
        StageError: A service ended for good, or it took too long; says how far it came.
    """
    part = _wait_for_rounds(awaited, judged=False)
    return Outcome(True, (f"trained in {len(part.rounds)} rounds",))


@step("parameter synchronization")
def synchronise(awaited: Awaited) -> Outcome:
    """Wait until the updates have left, and the models that came of them were received and judged.

    Raises:
        StageError: A service ended for good, or it took too long; says how far it came.
    """
    part = _wait_for_rounds(awaited, judged=True)
    up, down = (sum(getattr(one, key) or 0 for one in part.rounds) for key in ("bytes_up", "bytes_down"))
    return Outcome(True, (f"{up:,} bytes of updates sent, {down:,} bytes of models received",))


@step("logging and monitoring")
def monitor(awaited: Awaited) -> Outcome:
    """Write what the site did, and where its logs are, to ``results/site/summary.json``."""
    status, invitation = site_status(awaited.membership), awaited.membership.invitation
    content = {
        "site": invitation.site,
        "federation": invitation.federation,
        "connected": status.connected,
        "state": status.state,
        **_part_since(awaited.membership, awaited.since).content(),
        "logs": {name: str(path) for name, path in status.logs.items()},
    }
    write_json(awaited.membership.folder / SITE_SUMMARY, content)
    return Outcome(True, (status.state,), facts={"rows": list(status.rows())})


# Those that can run by themselves, in order. The other three are the rounds', which it is the server's to begin.
JOINING: tuple[Step[[Membership], None], ...] = (
    install_dependencies,
    initialise_client,
    partition_dataset,
    configure_model,
    connect,
)
STEPS: tuple[Step[..., Outcome | None], ...] = (*JOINING, train_in_rounds, synchronise, monitor)


def _wait_for_rounds(awaited: Awaited, judged: bool) -> SiteSummary:
    """Wait until the site has trained in so many rounds, or has ``judged`` the models that came of so many."""
    membership = awaited.membership
    deadline = time.monotonic() + awaited.wait_s
    while True:
        given_up = membership.services.given_up()  # asked first: what they did before they ended is then all there
        part = _part_since(membership, awaited.since)
        done = sum(one.judged for one in part.rounds) if judged else len(part.rounds)
        if done >= awaited.rounds:
            return part
        what = "judged what came of" if judged else "trained in"
        told = f"site '{membership.invitation.site}' has {what} {done} of {awaited.rounds} rounds"
        if given_up or not membership.services.known():
            ended = (given_up or NAMES)[0]
            raise StageError(f"{told}, and {ended} ended:\n{membership.services.tail(ended)}")
        if time.monotonic() >= deadline:
            raise StageError(
                f"{told} after {awaited.wait_s:.0f} s; it is the operator who starts runs, with `zk0 server run`"
            )
        time.sleep(_POLL_S)


def _part_since(membership: Membership, since: str) -> SiteSummary:
    """In which rounds the site has trained since a time, and what it could not do."""
    events = [event for event in events_so_far(membership.folder / EVENTS) if (event.time or "") >= since]
    found: dict[tuple[str | None, int | None], SiteTurn] = {}
    for event in events:
        key = (event.run, event.round)
        if event.event == "train" and event.train_loss is not None:
            kept = {"run", "round", "train_loss", "train_s", "seconds", "bytes_up", "bytes_down"}
            found[key] = SiteTurn.model_validate(event.model_dump(include=kept) | {"judged": False})
        elif event.event == "evaluate" and event.held_out_loss is not None and key in found:
            down = (found[key].bytes_down or 0) + (event.bytes_down or 0)
            judged = {"judged": True, "held_out_loss": event.held_out_loss, "bytes_down": down}
            found[key] = found[key].model_copy(update=judged)
    failures = tuple(str(event.message) for event in events if event.event in ("failed", "lost"))
    return SiteSummary(rounds=tuple(found.values()), failures=failures)
