"""Runs of the federation: handed to the SuperLink, and what an operator sees of them and of the sites at a glance.

Flower sends a run's app to every site, where it is code. Sites have zk0 installed, so the app holds no code: it names
which of what is installed on both ends to call, and what a site runs is what its owner installed.
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from zk0 import __version__
from zk0.console import folded_table
from zk0.errors import StageError
from zk0.federation.flower import Fab, build_fab_from_disk, control_pb2, fab_to_proto, user_config_to_proto
from zk0.files import write_text
from zk0.network.server.services import NAMES, FederationServer, present_nodes, runs_of
from zk0.network.server.wanted import NAME, Wanted
from zk0.records.files import rounds_so_far

SERVER_APP = "zk0.network.server.server_app:app"
CLIENT_APP = "zk0.network.client.app:app"

_PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"
license = {{ file = "LICENSE" }}
dependencies = []

[tool.flwr.app]
publisher = "zk0"

[tool.flwr.app.components]
serverapp = "{server_app}"
clientapp = "{client_app}"

[tool.flwr.app.config]
# For the ServerApp alone. Folders are on the server's machine, from where its services were started.
project = "."
security = "security"
sites = ""
wait-s = 60.0
min-sites = 0
"""
_LICENSE = "zk0 is licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


def write_bundle(folder: Path, client_app: str = CLIENT_APP, server_app: str = SERVER_APP, name: str = NAME) -> Path:
    """Write the app of a federation over a network.

    Args:
        folder: Where to; made if need be.
        client_app: ``MODULE:ATTRIBUTE`` of the ClientApp, as sites have it installed.
        server_app: The same of the ServerApp.
        name: By which the SuperLink's list of runs tells apps apart.

    Returns:
        The folder, for ``flwr build`` and ``flwr run``.
    """
    content = _PYPROJECT.format(version=__version__, name=name, server_app=server_app, client_app=client_app)
    write_text(folder / "pyproject.toml", content)
    write_text(folder / "LICENSE", _LICENSE)
    return folder


def submit(
    server: FederationServer,
    client_app: str = CLIENT_APP,
    server_app: str = SERVER_APP,
    name: str = NAME,
    **settings: str | float | int,
) -> int:
    """Hand a run over to the SuperLink.

    Args:
        server: Which runs, with the sites that are to take part.
        client_app: As sites have it installed.
        server_app: As the server has.
        name: The app's, by which runs are told apart.
        settings: For the ServerApp, by the names of the bundle with ``_`` for ``-``.

    Returns:
        The run's number.

    Raises:
        StageError: One is in progress already, or the SuperLink does not take it.
    """
    if busy := [run for run in runs_of(server) if not run.finished]:
        raise StageError(
            f"run {busy[0].number} is in progress; `zk0 server watch` follows it, `zk0 server halt` stops it"
        )
    with tempfile.TemporaryDirectory() as folder:
        app = build_fab_from_disk(write_bundle(Path(folder) / "app", client_app, server_app, name))
    config: Any = {key.replace("_", "-"): value for key, value in settings.items()}
    request = control_pb2.StartRunRequest(
        fab=fab_to_proto(Fab(hashlib.sha256(app).hexdigest(), app, {})), override_config=user_config_to_proto(config)
    )
    with server.control() as client:
        answer = client.StartRun(request)
    if not answer.HasField("run_id"):
        raise StageError(f"the SuperLink did not take the run; its log is {server.services.log('superlink')}")
    if name == NAME:
        Wanted(int(answer.run_id), (client_app, server_app), settings).write(server.root)
    return int(answer.run_id)


def tables(server: FederationServer) -> list[Table]:
    """Services, and where they run: sites with their presence, and the last run with its last round."""
    running = server.services.running()
    well = {name: name in running for name in reversed(NAMES)}  # SuperExec has no door of its own to knock at
    well["superlink"] = well["superlink"] and server.answers(f"https://{server.address}")
    well["gateway"] = well["gateway"] and server.answers(server.gateway_url)
    services = folded_table(("service", "", "log"), title="services")
    for name, is_well in well.items():
        services.add_row(name, "[green]runs" if is_well else "[red]does not run", str(server.services.log(name)))
    if not well["superlink"]:
        return [services]
    return [services, _sites(server), _runs(server)]


def _sites(server: FederationServer) -> Table:
    there = present_nodes(server)
    table = folded_table(("site", "number", "", "since"), title="sites")
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
    table = folded_table(("run", "", "handed over", "rounds", "held-out loss"), title="last runs")
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
