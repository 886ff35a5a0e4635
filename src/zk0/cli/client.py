"""`zk0 client`: a robot owner's side of a federation, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zk0.cli.options import Calibration, Cameras, Convention, Device, Fps, LeaveOut
from zk0.console import console, folded_table

if TYPE_CHECKING:
    from zk0.network.client.membership import Membership

app = typer.Typer(no_args_is_help=True, help="A robot owner's side of a federation over a network: see docs/join.md.")

Keys = Annotated[Path, typer.Option("--keys", help="Folder of the site's key pair.")]
KeyName = Annotated[str, typer.Option("--name", help="Ends the public key's line; says whose it is.")]
Name = Annotated[str | None, typer.Argument(help="The membership's; needed where there are several.")]


@app.command()
def keys(folder: Keys = Path("site-keys"), name: KeyName = "zk0") -> None:
    """Make the site's key pair; the public one is for the operator, who answers with an invitation."""
    from zk0.network.security.keys import NodeKey

    pair = NodeKey.create(folder, name)
    console.print(f"send the operator {pair.public_path}, whose fingerprint is\n{pair.fingerprint}", markup=False)


@app.command()
def join(
    server: Annotated[Path, typer.Argument(metavar="INVITATION", help="The file that the operator sent.")],
    data: Annotated[
        str,
        typer.Option(
            help="local:PATH, hub:OWNER/NAME@REVISION, sim:TASK or sim:TASK@ROOM, or a folder's path; never written to."
        ),
    ],
    folder: Keys = Path("site-keys"),
    authority: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="The authority's, as the operator told it by another way."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The membership's; the site's own by default.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="This machine's copy of the federation's starting policy. The project's by default."),
    ] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. The project's by default.")] = None,
    camera: Cameras = None,
    fps: Fps = None,
    convention: Convention = None,
    calibration: Calibration = None,
    leave_out: LeaveOut = None,
    clip: Annotated[
        float | None, typer.Option(help="No update of this site is longer than this; see docs/privacy.md.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Every update is noised by this times the clip, before it leaves.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Epsilon at which the site ends its part, whatever the server asks for.")
    ] = None,
) -> None:
    """Take part in a federation with your own data, which stays here; see docs/join.md."""
    from zk0.network.client.membership import Joining, open_membership
    from zk0.network.client.steps import join as run
    from zk0.workspaces.defaults import Request, camera_names

    request = Request(data, None, base, device, fps, camera_names(camera), convention, calibration, leave_out)
    demands = {"clip_norm": clip, "noise_multiplier": noise, "target_epsilon": budget}
    asked = {setting: value for setting, value in demands.items() if value is not None}
    membership = open_membership(Path.cwd(), Joining(server, request, folder, name, authority, threads, asked))
    run(membership)


@app.command()
def start(name: Name = None) -> None:
    """Start the site's services again, as after a reboot."""
    from zk0.network.client import steps

    steps.start(_membership(name))


@app.command()
def boot(name: Name = None, cron: Annotated[bool, typer.Option(help="A line for crontab instead.")] = False) -> None:
    """Print what starts the site again after a reboot: a unit for `systemctl --user`, with how to install it."""
    from zk0.operations.start import cron_line, unit

    root, found = Path.cwd(), _membership(name).name
    start, stop = f"client start {found}", f"client stop {found}"
    typer.echo(cron_line(root, start) if cron else unit(f"Site of the zk0 membership {found}", root, start, stop))


@app.command()
def stop(name: Name = None) -> None:
    """Stop the site's services; the membership stays."""
    from zk0.network.client.node import stop_node

    stopped = stop_node(_membership(name))
    console.print(f"stopped: {', '.join(stopped) or 'nothing was running'}", markup=False)


@app.command()
def leave(name: Name = None) -> None:
    """Withdraw from the federation; data, logs and what was spent of a privacy budget are kept."""
    from zk0.network.client.node import stop_node

    membership = _membership(name)
    stopped = stop_node(membership)
    site, server = membership.leave().invitation.site, membership.invitation.server
    console.print(
        f"stopped: {', '.join(stopped) or 'nothing was running'}\n"
        f"site '{site}' takes part no longer. Tell the operator of {server}, who shuts its key out:\n"
        f'  zk0 site revoke {site} --why "its owner left"\n'
        f"what it sent before stays in the models that came of it. Everything of this site is in {membership.folder}",
        markup=False,
    )


@app.command()
def status(name: Name = None) -> None:
    """Whether the site is connected, what it did last, and where its logs are."""
    from zk0.network.client.status import site_status

    console.print(folded_table(("", ""), site_status(_membership(name)).rows(), show_header=False), markup=False)


@app.command(hidden=True)
def step(name: str, step: str) -> None:
    """One of the steps of joining, for the flow."""
    from zk0.network.client.steps import JOINING
    from zk0.steps import step_named

    step_named(JOINING, step)(_membership(name))


def _membership(name: str | None) -> Membership:
    from zk0.network.client.membership import find_membership

    return find_membership(Path.cwd(), name)
