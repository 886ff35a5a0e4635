"""`zk0 site`: which sites belong to the federation, as commands of its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.console import console

app = typer.Typer(no_args_is_help=True, help="Which sites belong to the federation: see docs/SECURITY.md.")

Folder = Annotated[Path, typer.Option("--folder", help="Where the federation's keys are.")]
Server = Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where sites reach the gateway.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where the invitation goes.")]


@app.command()
def admit(name: str, pubkey: str, server: Server, out: Out = None, folder: Folder = Path("security")) -> None:
    """Let a site take part, by its public key's file or line, and write its invitation."""
    from zk0.network.security.invitation import admit_site

    _invited(admit_site(folder, name, pubkey, server, out))
    _tell_superlink(folder)


@app.command()
def rotate(name: str, pubkey: str, server: Server, out: Out = None, folder: Folder = Path("security")) -> None:
    """Give a site a new key in place of its old one, and write its new invitation."""
    from zk0.network.security.invitation import rotate_site

    _invited(rotate_site(folder, name, pubkey, server, out))
    _tell_superlink(folder)


@app.command()
def invite(name: str, server: Server, out: Out = None, folder: Folder = Path("security")) -> None:
    """Write a site's invitation again, as when the server has moved."""
    from zk0.network.security.invitation import invite_site

    _invited(invite_site(folder, name, server, out))


@app.command()
def revoke(
    name: str,
    why: Annotated[str, typer.Option("--why", help="Kept in the list, and told to the site.")],
    folder: Folder = Path("security"),
) -> None:
    """Shut a site out, from its next request on."""
    from zk0.network.security.files import Places
    from zk0.network.security.sites import SiteRegistry

    site = SiteRegistry(Places(folder).registry).revoke(name, why)
    console.print(f"{site.name} is revoked; the gateway refuses {site.fingerprint}", markup=False)
    _tell_superlink(folder)


@app.command("list")
def list_sites(folder: Folder = Path("security")) -> None:
    """All sites: number, state, since when and why, key and Flower's node."""
    from rich.table import Table

    from zk0.network.security.files import Places
    from zk0.network.security.sites import SiteRegistry

    sites = SiteRegistry(Places(folder).registry).sites()
    if not sites:
        console.print("no sites yet; `zk0 site admit NAME PUBKEY --server HOST:PORT`", markup=False)
        return
    table = Table("site", "partition", "state", "since", "node", "key", "why")
    for site in sites:
        node = "" if site.node_id is None else str(site.node_id)
        since = f"{site.since:%Y-%m-%d %H:%M}"
        table.add_row(site.name, str(site.partition), site.state, since, node, site.fingerprint, site.why)
    console.print(table)


@app.command()
def sync(
    superlink: Annotated[str, typer.Option("--superlink", metavar="HOST:PORT", help="On loopback.")] = "127.0.0.1:8000",
    folder: Folder = Path("security"),
) -> None:
    """Have the SuperLink know the admitted sites' keys and no others."""
    from zk0.network.security.files import Places, read_operator_token
    from zk0.network.security.sites import SiteRegistry
    from zk0.network.server.control import control, register_sites

    places = Places(folder)
    token = read_operator_token(places.operator_token)
    with control(superlink, places.authority / "ca.pem", token) as client:
        changes = register_sites(SiteRegistry(places.registry), client)
    for change in changes or ["nothing to change"]:
        console.print(change, markup=False)


def _tell_superlink(folder: Path) -> None:
    """Have this project's SuperLink follow the list, where it runs."""
    if not Path(".run/superlink.json").exists():
        console.print("`zk0 site sync` tells a SuperLink that runs elsewhere", markup=False)
        return
    from zk0.network.server.services import FederationServer

    server = FederationServer(Path.cwd(), folder)
    if "superlink" in server.services.running():
        for change in server.sync():
            console.print(change, markup=False)


def _invited(path: Path) -> None:
    from zk0.network.security.invitation import Invitation

    found = Invitation.read(path)
    console.print(
        f"{found.site} is number {found.partition} of federation {found.federation}, with the key {found.key}"
    )
    console.print(f"send the owner {path}, and tell them by another way the authority's fingerprint:", markup=False)
    console.print(found.authority_fingerprint, markup=False)
