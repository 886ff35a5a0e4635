"""What a message to a site costs over the network's services besides the site's own work, on loopback.

Beside an app that does nothing on the same SuperLink, gateway and SuperNode, and beside our own ClientApp without a
trainer, which loads policy and data in the process that Flower starts for each message.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from benchmarks.harness import Outcome, plain_app
from benchmarks.peers.empty_app import SECONDS, SETTINGS
from benchmarks.pieces import Pieces
from benchmarks.projects import CACHE, demo_params, use_params
from zk0.measuring.timing import Spread
from zk0.network.client.membership import Joining, Membership, open_membership
from zk0.network.client.node import free_port, stop_node
from zk0.network.client.steps import join
from zk0.network.security.files import initialise
from zk0.network.security.invitation import admit_site
from zk0.network.security.keys import NodeKey
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer
from zk0.network.server.steps import prepare
from zk0.records.files import read_journal, read_rounds
from zk0.records.run import Event
from zk0.workspaces.defaults import Request

NAME = "network"
SITE, TASK = "kitchen", "sim:push-red-cube-left"
EMPTY = "Flower 1.41, a ClientApp that does nothing"
OURS = "zk0.network.client.app:app"
LOADING = "Flower 1.41, a ClientApp that loads policy and data"


def measure(pieces: Pieces) -> Outcome:
    """Ours and the empty app in turns, then some messages that load."""
    rounds, loading, repeats = (4, 2, 1) if pieces.quick else (9, 4, 2)
    sizes = {"rounds": rounds, "loading_rounds": loading, "repeats": repeats, "threads": 2}
    found = pieces.get("messages", "benchmarks.network:messages", **sizes)
    warm, empty, loads = (Spread.of(found[name]) for name in ("warm", "empty", "loading"))
    work = "one message of a round's two, 2 M policy, one site over TLS on loopback, the site's own work taken out"
    above = {at: getattr(warm, at) - getattr(empty, at) for at in ("low", "median", "high")}
    return Outcome(
        title="Messages over the network",
        about=(
            "SuperLink, gateway, SuperNode and the site's trainer as the documented commands start them, on loopback; "
            "from the server's sending a message to its having the checked reply, less the seconds in which the site "
            "trained or judged. Round 1 is left out. The empty app sends messages without content by the same Grid to "
            "a ClientApp that answers at once: most of it is Flower's, whose SuperNode asks for messages every 3 s, "
            "looks for replies every 0.5 s, and starts a process for each. "
            "So when a message comes in that cycle decides most of its time, and the ends tell more than the middle: "
            "ours less an empty one, with 2.2 MB of tensors and all checks, is "
            f"{above['low']:+.2f} s for the fastest, {above['median']:+.2f} s at the median and {above['high']:+.2f} s "
            "for the slowest."
        ),
        rows=[
            pieces.row("message to a site, warm", work, "s", warm.median, (empty.median, EMPTY)),
            pieces.row("message to a site, warm, beside loading", work, "s", warm.median, (loads.median, LOADING)),
        ],
        spread={
            "warm": f"{warm} s",
            EMPTY: f"{empty} s",
            LOADING: f"{loads} s",
            "the site's own work": f"{Spread.of(found['working'])} s",
        },
        more={"above_empty_s": above["median"]},
    )


def messages(*, rounds: int, loading_rounds: int, repeats: int, threads: int) -> dict[str, list[float]]:
    """Seconds of single messages, round 1 and the first empty one left out.

    Args:
        rounds: Of each federation with a warm trainer; each is two messages, and as many empty ones are sent.
        loading_rounds: Of one where each message's process loads policy and data; 0 leaves it out.
        repeats: How often the two take turns.
        threads: Of the site's training.

    Returns:
        ``warm`` and ``loading`` with the site's own work, its training and its judging, taken out; ``empty``;
        ``working``, that work.
    """
    found: dict[str, list[float]] = {"warm": [], "loading": [], "empty": [], "working": []}
    with site_and_server(threads) as server:
        for number in range(1, repeats + 1):
            spent, working = _rounds(server, rounds, number, OURS)
            found["warm"] += spent
            found["working"] += working
            found["empty"] += _empty(server, 2 * rounds)
        if loading_rounds:
            found["loading"] = _rounds(server, loading_rounds, repeats + 1, "benchmarks.peers.loading_app:app")[0]
    return found


@contextmanager
def site_and_server(threads: int) -> Iterator[FederationServer]:
    """The operator's services with one connected site; all of it down at the end."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="network-", dir=CACHE) as folder:
        operator, owner = Path(folder).resolve() / "operator", Path(folder).resolve() / "owner"
        for root in (operator, owner):
            root.mkdir()
            use_params(root, demo_params(data={"episodes": 4}))
        initialise(operator / "security", ["127.0.0.1"], "benchmark")
        server = FederationServer(operator)
        server.start(host="127.0.0.1", port=free_port(), upstream=f"https://127.0.0.1:{free_port()}")
        with ExitStack() as stack:
            stack.callback(server.stop)
            joined(stack, server, owner, SITE, TASK, threads)
            yield server


def joined(stack: ExitStack, server: FederationServer, owner: Path, site: str, task: str, threads: int) -> Membership:
    """A site that the operator has invited and that has joined; it leaves when the stack closes.

    Args:
        stack: Takes what ends the site's services.
        server: The operator's, running.
        owner: The site's folder, with params.
        site: Its name.
        task: Its data, as params name it.
        threads: Of its training.
    """
    key = NodeKey.create(owner / "site-keys", site)
    invitation = admit_site(server.places.folder, site, key.public_path, server.gateway_url.removeprefix("https://"))
    server.sync()
    request = Request(data=task, device="cpu")
    member = open_membership(owner, Joining(invitation, request, key.folder, threads=threads))
    stack.callback(stop_node, member)
    join(member)
    return member


def _rounds(server: FederationServer, rounds: int, seed: int, client_app: str) -> tuple[list[float], list[float]]:
    """A federation of one site: seconds of its messages without the site's work, and of that work."""
    params = demo_params(
        training={"local_steps": 2, "batch": 4},
        federation={"rounds": rounds},
        evaluation={"loss_draws": 1},
        data={"episodes": 4},
    )
    use_params(server.root, params.model_copy(update={"seed": seed}))
    prepare(server)
    list(watch(server, submit(server, client_app)))
    made = {one.round: one.sites for one in read_rounds(server.root)}
    events = [e for e in read_journal(server.root) if e.event in ("round-start", "train", "aggregate", "evaluate")]
    spent, working = [], []
    # What a message waits for is what its event comes after: nothing else is done by a server of one site.
    for before, after in pairwise(events):
        if after.event in ("train", "evaluate") and after.round is not None and after.round > 1:
            (site,) = made[after.round].values()
            working.append(float((site.train_s if after.event == "train" else site.evaluate_s) or 0))
            spent.append(_between(before, after) - working[-1])
    return spent, working


def _empty(server: FederationServer, count: int) -> list[float]:
    """As many messages to a ClientApp that does nothing."""
    (server.root / SETTINGS).write_text(json.dumps(count + 1))
    app = "benchmarks.peers.empty_app"
    list(watch(server, submit(server, f"{app}:client_app", f"{app}:server_app")))
    return list(json.loads((server.root / SECONDS).read_text()))[1:]


def _between(before: Event, after: Event) -> float:
    return (datetime.fromisoformat(str(after.time)) - datetime.fromisoformat(str(before.time))).total_seconds()


app = plain_app(NAME, "Time messages to a site over the network's services.", measure)

if __name__ == "__main__":
    app()
