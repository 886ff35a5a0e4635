"""What an operator wants to see of the server at a glance."""

from __future__ import annotations

from datetime import UTC, datetime

from flwr.proto.control_pb2 import ListNodesRequest
from flwr.supercore.constant import NodeStatus
from rich.table import Table

from zk0.network.server.bundle import NAME
from zk0.network.server.services import FederationServer, runs_of
from zk0.records.files import rounds_so_far


def tables(server: FederationServer) -> list[Table]:
    """Services, and where they run: sites with their presence, and the last run with its last round."""
    health = server.health()
    services = Table("service", "", "log", title="services")
    for name, well in health.items():
        services.add_row(name, "[green]runs" if well else "[red]does not run", str(server.services.log(name)))
    if not health["superlink"]:
        return [services]
    return [services, _sites(server), _runs(server)]


def present_nodes(server: FederationServer) -> dict[int, str]:
    """By node, since when it is there; those that are away are not listed."""
    with server.control() as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {node.node_id: node.last_activated_at for node in nodes if node.status == NodeStatus.ONLINE}


def _sites(server: FederationServer) -> Table:
    there = present_nodes(server)
    table = Table("site", "number", "", "since", title="sites")
    for site in server.registry.sites():
        if not site.admitted:
            state, since = "[red]revoked", f"{site.since:%Y-%m-%d %H:%M}"
        elif site.node_id in there:
            state, since = "[green]there", _when(there[site.node_id])
        else:
            state, since = "[yellow]away", ""
        table.add_row(site.name, str(site.partition), state, since)
    return table


def _runs(server: FederationServer) -> Table:
    table = Table("run", "", "handed over", "rounds", "held-out loss", title="last runs")
    rows = rounds_so_far(server.root)
    federated = [run for run in runs_of(server) if run.app == NAME]
    for place, run in enumerate(federated[:3]):
        state = run.outcome or run.status
        rounds, loss = "", ""
        if rows and place == 0:  # the files are of the last run alone
            rounds, loss = str(rows[-1].round), f"{rows[-1].held_out_loss:.4f}"
        table.add_row(str(run.number), state, _when(run.started), rounds, loss)
    return table


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}" if text else ""
