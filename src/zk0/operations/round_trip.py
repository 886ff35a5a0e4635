"""A round-trip message to each site, by a run of its own: gateway, SuperLink, node, ClientApp, trainer, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from zk0.checks import Check
from zk0.errors import StageError
from zk0.federation import protocol
from zk0.federation.flower import HttpGrid
from zk0.files import read_json, write_json
from zk0.network.security.files import Places
from zk0.network.security.site_registry import SiteRegistry
from zk0.network.server.grid import NetworkGrid
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer, halt, runs_of
from zk0.services.process import RUN

SERVER_APP = "zk0.operations.round_trip:app"
NAME = "zk0-health"
FOUND = RUN / "health" / "round-trip.json"
_WAIT_S = 60.0
_START_S = 60.0  # for the ServerApp's process
_POLL_S = 0.5

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every admitted site for the summary of its data, as a run's roll call does, and write down what came back."""
    settings = context.run_config
    root = Path(str(settings["project"])).resolve()
    registry = SiteRegistry(Places(root / str(settings["security"])).registry)
    sites = {site.node_id: site for site in registry.sites() if site.admitted and site.node_id is not None}
    network = NetworkGrid(cast(HttpGrid, grid), list(sites), sites.__contains__)
    messages = []
    for node, site in sites.items():
        content = RecordDict()
        protocol.write(content, protocol.Header(run="", round=0, partition=site.partition))
        messages.append(Message(content, node, protocol.SUMMARY, group_id="0"))
    found: dict[str, dict[str, Any]] = {site.name: {"problem": "no reply in time"} for site in sites.values()}
    began = time.monotonic()
    for reply in network.send_and_receive(messages, timeout=float(cast(float, settings["wait-s"]))):
        site = sites[reply.metadata.src_node_id]
        problem = protocol.failure(reply, site.name) if reply.has_error() else ""
        found[site.name] = {"seconds": round(time.monotonic() - began, 2), "problem": problem}
    write_json(root / FOUND, found)


def round_trips(server: FederationServer, wait_s: float = _WAIT_S) -> dict[str, Check]:
    """Send each admitted site a message, and wait for the replies.

    Args:
        server: Its services are running, and no run is in progress.
        wait_s: How long sites may take.

    Returns:
        By site, whether it answered: in how many seconds, or why not.

    Raises:
        StageError: A run is in progress, or this one failed.
    """
    file = server.root / FOUND
    file.unlink(missing_ok=True)
    server.sync()
    number = submit(server, server_app=SERVER_APP, name=NAME, wait_s=wait_s)
    deadline = time.monotonic() + wait_s + _START_S
    while not runs_of(server, number)[0].finished:
        if time.monotonic() > deadline:
            halt(server, number)
            raise StageError(f"the message's run did not end within {wait_s + _START_S:.0f} s, and was stopped")
        time.sleep(_POLL_S)
    if not file.exists():
        raise StageError(
            f"the message's run failed: {runs_of(server, number)[0].details or 'see `zk0 logs superexec`'}"
        )
    return {name: _check(name, **one) for name, one in read_json(file).items()}


def _check(site: str, problem: str, seconds: float = 0.0) -> Check:
    found = problem or f"answered a message in {seconds:.1f} s"
    return Check(f"site {site}", not problem, found, "a reply", "have its owner look at `zk0 client status`", "warning")
