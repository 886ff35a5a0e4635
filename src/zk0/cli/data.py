"""`zk0 data`: look at a dataset, convert an older format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile

app = typer.Typer(no_args_is_help=True, help="Your own recordings: see docs/data.md.")

_Source = "local:PATH, hub:OWNER/NAME@REVISION, or a folder's path."


@app.command("check")
def check(
    source: Annotated[str | None, typer.Argument(help=f"{_Source} All in params if not given.")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Say what a dataset is, what it would be taken for and why, and what params must say about it."""
    from zk0.params import load_params
    from zk0.pipeline import data

    known = load_params(params).data if params.exists() or source is None else None
    data.check(Path.cwd(), known, source)


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(help=f"{_Source} Never written to.")],
    target: Annotated[Path, typer.Argument(help="The new folder.")],
) -> None:
    """Convert a dataset of LeRobot's format v2.1 to v3.0, into a new folder."""
    from zk0.pipeline import data

    data.convert(Path.cwd(), source, target)
