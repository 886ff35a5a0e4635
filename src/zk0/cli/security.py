"""`zk0 security`: the federation's authority, certificates and secrets, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.console import console

app = typer.Typer(no_args_is_help=True, help="Who is trusted in a federation over a network: see docs/SECURITY.md.")

Folder = Annotated[Path, typer.Option("--folder", help="Where the federation's keys are.")]
Days = Annotated[int, typer.Option("--days", min=1, help="How long the server's certificate is valid.")]


@app.command()
def init(
    host: Annotated[list[str], typer.Option("--host", help="A name or address by which sites reach the server.")],
    federation: Annotated[str, typer.Option("--federation", help="The federation's name.")] = "zk0",
    days: Days = 365,
    folder: Folder = Path("security"),
) -> None:
    """Make the authority, the server's certificates, the operator's token and an empty list of sites."""
    from zk0.network.security.files import initialise

    places = initialise(folder, host, federation, days)
    console.print(f"made {places.folder}; back it up where nobody else can read it", markup=False)
    show(folder)


@app.command()
def show(folder: Folder = Path("security")) -> None:
    """Until when certificates are valid, and their fingerprints; fails when one has expired."""
    from rich.table import Table

    from zk0.network.security.authority import expiries
    from zk0.network.security.files import Places

    rows = expiries(Places(folder).authority)
    table = Table("certificate", "for", "until", "days left", "state")
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
    folder: Folder = Path("security"),
) -> None:
    """Issue the server's certificates anew, with new keys; the old ones are kept."""
    from zk0.network.security.files import renew

    for made in renew(folder, days, host):
        names = ", ".join(made.hosts)
        console.print(f"{made.path.parent.name:<10} until {made.expires:%d %B %Y} for {names}", markup=False)
    console.print(
        "a gateway that runs has taken its own; the SuperLink takes its when it is next started", markup=False
    )
