"""`zk0 deploy`, `status`, `stop`, `restart`, `logs`, `backup`, `restore`: what an operator types."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from zk0.console import console

app = typer.Typer()
deploy_app = typer.Typer(
    help="Bring up what deployment.yaml names, in the seven documented steps: see docs/operate.md."
)
_PANEL = "Operating a federation"

Service = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVICE]...", help="As `zk0 status` names them, or a group of them.")
]


@deploy_app.callback(invoke_without_command=True)
def deploy(
    context: typer.Context,
    stay: Annotated[
        bool, typer.Option("--stay", help="Stay until Ctrl-C or SIGTERM, then stop it all: for a container.")
    ] = False,
) -> None:
    """Bring up what deployment.yaml names, in the seven documented steps. What is well is left as it is."""
    if context.invoked_subcommand is not None:
        return
    from zk0.operations.deploy import Deployment, run
    from zk0.operations.start import stop_services

    if stay:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(Deployment.open(Path.cwd()))
        console.print("`zk0 status` shows it all, `zk0 stop` stops it", markup=False)
        while stay:
            signal.pause()
    except KeyboardInterrupt:
        if not stay:
            raise
        console.print(f"stopped: {', '.join(stop_services(Path.cwd())) or 'nothing was running'}", markup=False)


@deploy_app.command()
def init(
    host: Annotated[list[str], typer.Option("--host", help="A name or address by which sites reach this machine.")],
) -> None:
    """Write deployment.yaml, explained; nothing is started."""
    from zk0.network.config import CONFIG, write_default

    write_default(CONFIG, host)
    console.print(f"wrote {CONFIG}; look through it, then `zk0 deploy`", markup=False)


@deploy_app.command()
def boot(cron: Annotated[bool, typer.Option(help="A line for crontab instead.")] = False) -> None:
    """Print what brings it all up after a reboot: a unit for `systemctl --user`, with how to install it."""
    from zk0.operations.start import cron_line, unit

    root = Path.cwd()
    typer.echo(cron_line(root, "deploy") if cron else unit("zk0: server of a federation", root, "deploy", "stop"))


@app.command(rich_help_panel=_PANEL)
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where a service that deployment.yaml names does not run.")
    ] = False,
) -> None:
    """Services, sites, last round, certificates, disk and alerts on one screen."""
    from zk0.operations.status import overview, render

    seen = overview(Path.cwd())
    if as_json:
        typer.echo(json.dumps(seen, indent=2))
    else:
        for part in render(seen):
            console.print(part)
    if check and (not seen["services"] or any(one["wanted"] and not one["up"] for one in seen["services"])):
        raise typer.Exit(1)


@app.command(rich_help_panel=_PANEL)
def stop(service: Service = None) -> None:
    """Stop services, the last started first; all that run here where none is named."""
    from zk0.network.config import members
    from zk0.operations.start import stop_services

    names = [one for name in service for one in members(name)] if service else None
    console.print(f"stopped: {', '.join(stop_services(Path.cwd(), names)) or 'nothing was running'}", markup=False)


@app.command(rich_help_panel=_PANEL)
def restart(service: Service = None) -> None:
    """Stop services and start them again; all that deployment.yaml names where none is named."""
    from zk0.network.config import CONFIG, DeploymentConfig
    from zk0.operations.start import restart_services

    root = Path.cwd()
    started = restart_services(root, DeploymentConfig.read(root / CONFIG), service or [])
    console.print(f"started: {', '.join(started)}", markup=False)


@app.command(rich_help_panel=_PANEL)
def logs(
    service: Annotated[str, typer.Argument(help="As `zk0 status` names it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="How many of those that are there.")] = 100,
) -> None:
    """The end of a service's log."""
    from zk0.services.process import read_log

    try:
        for line in read_log(Path.cwd(), service, lines, follow):
            typer.echo(line)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command(rich_help_panel=_PANEL)
def backup(out: Annotated[Path, typer.Argument(help="The file to write; only its owner may read it.")]) -> None:
    """Write keys, sites, states, runs, models and settings into one file; services may go on."""
    from zk0.operations.backup import back_up

    names = back_up(Path.cwd(), out)
    console.print(f"wrote {out}: {', '.join(names)}\nit holds the federation's keys: keep it private", markup=False)


@app.command(rich_help_panel=_PANEL)
def restore(file: Annotated[Path, typer.Argument(help="A file that `zk0 backup` wrote.")]) -> None:
    """Put a backup back, where nothing of it is overwritten."""
    from zk0.operations.backup import restore as put_back

    console.print(f"restored: {', '.join(put_back(file, Path.cwd()))}", markup=False)
