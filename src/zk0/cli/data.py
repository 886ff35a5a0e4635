"""`zk0 data`: look at a dataset, convert an older format; `zk0 features`: what is kept of its frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile, project
from zk0.console import console, folded_table

app = typer.Typer(no_args_is_help=True, help="Your own recordings: see docs/data.md.")
features_app = typer.Typer(
    no_args_is_help=True,
    help="What a frozen backbone computes for a frame, kept on disk: see docs/features.md.",
)

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


@features_app.command("build")
def features_build(params: ParamsFile = Path("params.yaml")) -> None:
    """Compute the features of all frames ahead of time; goes on where it stopped. Needs `zk0 prepare` first."""
    from zk0.pipeline import features

    features.build(*project(params))


@features_app.command("size")
def features_size() -> None:
    """What is kept, by backbone, and how large it is."""
    from zk0.policy.features.places import features_folder, size_text, usage

    folder = features_folder(Path.cwd())
    rows = usage(folder)
    if not rows:
        console.print(f"no features in {folder}", markup=False)
        return
    table = folded_table(("folder", "what", "files", "frames", "computed", "size"))
    for row in rows:
        counts = (str(row.files), str(row.frames), str(row.filled))
        table.add_row(row.folder.name, row.about, *counts, size_text(row.size))
    console.print(table)
    console.print(f"{size_text(sum(row.size for row in rows))} in {folder}", markup=False)


@features_app.command("clean")
def features_clean(
    keep_current: Annotated[
        bool, typer.Option("--keep-current", help="Leave what these params, manifests and starting policy need.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Delete features. They are computed again when they are needed."""
    from zk0.pipeline import features

    features.clear(*project(params), keep_current)
