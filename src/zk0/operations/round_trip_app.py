"""The ServerApp of a health check: every site is sent one small message, and what came back is written down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import HttpGrid

from zk0.federation import protocol
from zk0.federation.protocol import failure
from zk0.files import write_json
from zk0.network.security.files import Places
from zk0.network.security.site_registry import SiteRegistry
from zk0.network.server.grid import NetworkGrid
from zk0.services.process import RUN

FOUND = RUN / "health" / "round-trip.json"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every admitted site for the summary of its data, as a run's roll call does."""
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
        problem = failure(reply, site.name) if reply.has_error() else ""
        found[site.name] = {"seconds": round(time.monotonic() - began, 2), "problem": problem}
    write_json(root / FOUND, found)
