"""`zk0 client`: a robot owner's side of a federation, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.console import console

app = typer.Typer(help="A robot owner's side of a federation over a network: see docs/SECURITY.md.")

Keys = Annotated[Path, typer.Option("--keys", help="Folder of the site's key pair.")]
Name = Annotated[str, typer.Option("--name", help="Ends the public key's line; says whose it is.")]


@app.callback(no_args_is_help=True)
def client() -> None:
    """With one command typer would leave out its name."""


@app.command()
def keys(folder: Keys = Path("site-keys"), name: Name = "zk0") -> None:
    """Make the site's key pair; the public one is for the operator, who answers with an invitation."""
    from zk0.deployment.security.keys import NodeKey

    pair = NodeKey.create(folder, name)
    console.print(f"send the operator {pair.public_path}, whose fingerprint is\n{pair.fingerprint}", markup=False)
