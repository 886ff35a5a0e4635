"""A federation over TLS on loopback, the operator's services and a site that has joined: how long messages take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.empty_app import SECONDS, SETTINGS
from benchmarks.projects import CACHE, demo_params, use_params

SITE, TASK = "kitchen", "sim:push-red-cube-left"


def messages(*, rounds: int, loading_rounds: int, repeats: int, threads: int) -> dict[str, Any]:
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
    from zk0.network.client.app import __name__ as site_app

    found: dict[str, list[float]] = {"warm": [], "loading": [], "empty": [], "working": []}
    with site_and_server(threads) as server:
        for number in range(1, repeats + 1):
            spent, working = _rounds(server, rounds, number, f"{site_app}:app")
            found["warm"] += spent
            found["working"] += working
            found["empty"] += _empty(server, 2 * rounds)
        if loading_rounds:
            found["loading"] = _rounds(server, loading_rounds, repeats + 1, "benchmarks.peers.loading_app:app")[0]
    return found


@contextmanager
def site_and_server(threads: int) -> Iterator[Any]:
    """The operator's services with one connected site; all of it down at the end."""
    from zk0.network.client import steps
    from zk0.network.client.membership import Joining, open_membership
    from zk0.network.client.node import free_port, stop_node
    from zk0.network.security.files import initialise
    from zk0.network.security.invitation import admit_site
    from zk0.network.security.keys import NodeKey
    from zk0.network.server.services import FederationServer
    from zk0.workspaces.defaults import Request

    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="network-", dir=CACHE) as folder:
        operator, owner = Path(folder).resolve() / "operator", Path(folder).resolve() / "owner"
        for root in (operator, owner):
            root.mkdir()
            use_params(root, demo_params(data={"episodes": 4}))
        places, server = initialise(operator / "security", ["127.0.0.1"], "benchmark"), FederationServer(operator)
        server.start(host="127.0.0.1", port=free_port(), upstream=f"https://127.0.0.1:{free_port()}")
        membership = None
        try:
            address = server.gateway_url.removeprefix("https://")
            key = NodeKey.create(owner / "site-keys", SITE)
            invitation = admit_site(places.folder, SITE, key.public_path, address)
            server.sync()
            request = Request(data=TASK, device="cpu")
            membership = open_membership(owner, Joining(invitation, request, key.folder, threads=threads))
            steps.join(membership)
            yield server
        finally:
            if membership:
                stop_node(membership)
            server.stop()


def _rounds(server: Any, rounds: int, seed: int, client_app: str) -> tuple[list[float], list[float]]:
    """A federation of one site: seconds of its messages without the site's work, and of that work."""
    from zk0.network.server.resume import watch
    from zk0.network.server.runs import submit
    from zk0.network.server.session import prepare
    from zk0.records.files import read_lines

    params = demo_params(
        training={"local_steps": 2, "batch": 4},
        federation={"rounds": rounds},
        evaluation={"loss_draws": 1},
        data={"episodes": 4},
    )
    use_params(server.root, params.model_copy(update={"seed": seed}))
    prepare(server)
    list(watch(server, submit(server, client_app)))
    rows = {row["round"]: row["sites"] for row in read_lines(server.root / "results/federation/rounds.jsonl")}
    events = read_lines(server.root / "results/federation/events.jsonl")
    spent, working = [], []
    # What a message waits for is what its event comes after: nothing else is done by a server of one site.
    for before, after in pairwise(e for e in events if e["event"] in ("round-start", "train", "aggregate", "evaluate")):
        kind, number = after["event"], after["round"]
        if kind in ("train", "evaluate") and number > 1:
            (site,) = rows[number].values()
            working.append(site[f"{kind}_s"])
            spent.append(_between(before, after) - working[-1])
    return spent, working


def _empty(server: Any, count: int) -> list[float]:
    """As many messages to a ClientApp that does nothing."""
    from zk0.network.server.resume import watch
    from zk0.network.server.runs import submit

    (server.root / SETTINGS).write_text(json.dumps(count + 1))
    app = "benchmarks.peers.empty_app"
    list(watch(server, submit(server, f"{app}:client_app", f"{app}:server_app")))
    return list(json.loads((server.root / SECONDS).read_text()))[1:]


def _between(before: dict[str, Any], after: dict[str, Any]) -> float:
    return (datetime.fromisoformat(after["time"]) - datetime.fromisoformat(before["time"])).total_seconds()
