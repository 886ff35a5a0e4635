"""`zk0 security`: authority, certificates and secrets; `zk0 site`: which sites belong to the federation."""

from __future__ import annotations

from itertools import batched
from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import KeyFolder
from zk0.console import console, folded_table
from zk0.errors import StageError

app = typer.Typer(no_args_is_help=True, help="Who is trusted in a federation over a network: see docs/SECURITY.md.")
site_app = typer.Typer(no_args_is_help=True, help="Which sites belong to the federation: see docs/SECURITY.md.")

Days = Annotated[int, typer.Option("--days", min=1, help="How long the server's certificate is valid.")]
Server = Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where sites reach the gateway.")]
Site = Annotated[str, typer.Argument(metavar="NAME", help="The site's.")]
PublicKey = Annotated[str, typer.Argument(help="The file `site.pub` that the owner sent, or its text.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where the invitation goes.")]


@app.command()
def init(
    host: Annotated[list[str], typer.Option("--host", help="A name or address by which sites reach the server.")],
    federation: Annotated[str, typer.Option("--federation", help="The federation's name.")] = "zk0",
    days: Days = 365,
    folder: KeyFolder = Path("security"),
) -> None:
    """Make the authority, the server's certificates, the operator's token and an empty list of sites."""
    from zk0.network.security.files import initialise

    places = initialise(folder, host, federation, days)
    console.print(f"made {places.folder}; back it up where nobody else can read it", markup=False)
    show(folder)


@app.command()
def show(folder: KeyFolder = Path("security")) -> None:
    """Until when certificates are valid, and their fingerprints; fails when one has expired."""
    from zk0.network.security.authority import expiries
    from zk0.network.security.files import Places

    rows = expiries(Places(folder).authority)
    table = folded_table(("certificate", "for", "until", "days left", "state"))
    for row in rows:
        table.add_row(row.name, ", ".join(row.hosts), f"{row.expires:%d %B %Y}", str(row.days_left), row.state)
    console.print(table)
    for row in rows:
        console.print(f"{row.name:<10} {row.fingerprint}", markup=False)
    if any(row.state == "expired" for row in rows):
        console.print("`zk0 security rotate` issues new ones", markup=False)
        raise typer.Exit(1)


@app.command()
def rotate(
    host: Annotated[
        list[str] | None, typer.Option("--host", help="For other names than before; all of them are given.")
    ] = None,
    days: Days = 365,
    folder: KeyFolder = Path("security"),
) -> None:
    """Issue the server's certificates anew, with new keys; the old ones are kept."""
    from zk0.network.security.files import renew

    for made in renew(folder, days, host):
        names = ", ".join(made.hosts)
        console.print(f"{made.path.parent.name:<10} until {made.expires:%d %B %Y} for {names}", markup=False)
    console.print(
        "a gateway that runs has taken its own; the SuperLink takes its when it is next started", markup=False
    )


@site_app.command()
def admit(
    sites: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME PUBKEY ...", help="The site's, and the file `site.pub` that its owner sent, or its text."
        ),
    ],
    server: Server,
    out: Out = None,
    folder: KeyFolder = Path("security"),
) -> None:
    """Let a site take part, by its public key's file or line, or several, and write their invitations."""
    from zk0.network.security.invitation import admit_site

    pairs = list(batched(sites, 2))
    if len(pairs[-1]) < 2:
        raise StageError(f"each site has a name and a public key; '{sites[-1]}' stands alone")
    if out is not None and len(pairs) > 1:
        raise StageError("--out names one invitation; those of several sites go into the key folder's invitations/")
    for name, pubkey in pairs:
        _invited(admit_site(folder, name, pubkey, server, out))
    _tell_superlink(folder)


@site_app.command("rotate")
def rotate_key(
    name: Site, pubkey: PublicKey, server: Server, out: Out = None, folder: KeyFolder = Path("security")
) -> None:
    """Give a site a new key in place of its old one, and write its new invitation."""
    from zk0.network.security.invitation import rotate_site

    _invited(rotate_site(folder, name, pubkey, server, out))
    _tell_superlink(folder)


@site_app.command()
def invite(name: Site, server: Server, out: Out = None, folder: KeyFolder = Path("security")) -> None:
    """Write a site's invitation again, as when the server has moved."""
    from zk0.network.security.invitation import invite_site

    _invited(invite_site(folder, name, server, out))


@site_app.command()
def revoke(
    name: Site,
    why: Annotated[str, typer.Option("--why", help="Kept in the list, and told to the site.")],
    folder: KeyFolder = Path("security"),
) -> None:
    """Shut a site out, from its next request on."""
    from zk0.network.security.files import Places
    from zk0.network.security.sites import SiteRegistry

    site = SiteRegistry(Places(folder).registry).revoke(name, why)
    console.print(f"{site.name} is revoked; the gateway refuses {site.fingerprint}", markup=False)
    _tell_superlink(folder)


@site_app.command("list")
def list_sites(folder: KeyFolder = Path("security")) -> None:
    """All sites: number, state, since when and why, key and Flower's node."""
    from zk0.network.security.files import Places
    from zk0.network.security.sites import SiteRegistry

    sites = SiteRegistry(Places(folder).registry).sites()
    if not sites:
        console.print("no sites yet; `zk0 site admit NAME PUBKEY --server HOST:PORT`", markup=False)
        return
    table = folded_table(("site", "partition", "state", "since", "node", "key", "why"))
    for site in sites:
        node = "" if site.node_id is None else str(site.node_id)
        since = f"{site.since:%Y-%m-%d %H:%M}"
        table.add_row(site.name, str(site.partition), site.state, since, node, site.fingerprint, site.why)
    console.print(table)


@site_app.command()
def sync(
    superlink: Annotated[str, typer.Option("--superlink", metavar="HOST:PORT", help="On loopback.")] = "127.0.0.1:8000",
    folder: KeyFolder = Path("security"),
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
