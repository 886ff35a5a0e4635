"""`zk0 server`: the operator's side of a federation over a network, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zk0.cli.options import KeyFolder, project
from zk0.cli.security import init as make_keys
from zk0.console import console

if TYPE_CHECKING:
    from zk0.network.server.services import FederationServer
    from zk0.network.server.steps import Serving

app = typer.Typer(
    no_args_is_help=True, help="The server of a federation over a network: see docs/federate-over-a-network.md."
)

Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for sites that are away.")]
Least = Annotated[int, typer.Option("--min-sites", help="Begin a new run with so many of the sites (0 = all).")]
Sites = Annotated[str, typer.Option("--sites", metavar="NAME,NAME", help="Only these of the admitted sites.")]


def _server(folder: Path) -> FederationServer:
    from zk0.network.server.services import FederationServer

    return FederationServer(Path.cwd(), folder)


def _serving(folder: Path, **settings: Any) -> Serving:
    from zk0.network.server.steps import Serving

    return Serving(_server(folder), project(Path("params.yaml"))[1], **settings)


@app.command()
def start(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on for sites. 0.0.0.0, every one, by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on for sites. 9443 by default.")] = None,
    superlink_port: Annotated[int | None, typer.Option(help="The SuperLink's, on loopback. 8000 by default.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Prometheus' metrics of the gateway, on loopback. None by default.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="HOST",
            help="Where there are no keys yet, make them first, as `zk0 security init --host HOST` does.",
        ),
    ] = None,
    folder: KeyFolder = Path("security"),
) -> None:
    """Start SuperLink and gateway in the background; settings are kept in gateway.yaml."""
    if init is not None and not (folder.exists() and any(folder.iterdir())):
        make_keys([init], folder=folder)
    server = _server(folder)
    upstream = None if superlink_port is None else f"https://127.0.0.1:{superlink_port}"
    started = server.start(host=host, port=port, upstream=upstream, metrics_port=metrics_port)
    console.print(f"started: {', '.join(started) or 'nothing, all of it runs'}", markup=False)
    console.print(f"sites reach it on port {server.gateway.port}; `zk0 server run` starts a federation", markup=False)


@app.command()
def stop(folder: KeyFolder = Path("security")) -> None:
    """Stop them; a run in progress goes on from its last complete round when it is started again."""
    console.print(f"stopped: {', '.join(_server(folder).stop()) or 'nothing was running'}", markup=False)


@app.command()
def run(wait: Wait = 60.0, min_sites: Least = 0, sites: Sites = "", folder: KeyFolder = Path("security")) -> None:
    """Run the federation with the admitted sites, or go on where a stopped one ended."""
    from zk0.network.server import steps

    steps.run(_serving(folder, wait_s=wait, min_sites=min_sites, sites=sites))


@app.command()
def check(folder: KeyFolder = Path("security")) -> None:
    """Look at what protects the running server, as a checklist; results/security.json keeps it."""
    from zk0.network.server import steps

    for line in steps.validate_security(_serving(folder)).told:
        console.print(line, markup=False)


@app.command()
def watch(folder: KeyFolder = Path("security")) -> None:
    """Follow the run that is in progress."""
    from zk0.network.server.steps import follow

    follow(_server(folder))


@app.command()
def halt(folder: KeyFolder = Path("security")) -> None:
    """Stop the run that is in progress; complete rounds are saved."""
    from zk0.network.server.services import halt as halt_run

    stopped = halt_run(_server(folder))
    console.print(f"stopped: {', '.join(map(str, stopped)) or 'no run was in progress'}", markup=False)


@app.command()
def status(folder: KeyFolder = Path("security")) -> None:
    """Services, sites and the last run."""
    from zk0.network.server.runs import tables

    for table in tables(_server(folder)):
        console.print(table)
