"""Commands about federated models: `zk0 runs`, `compare`, `promote`, `demote`, `publish` and `zk0 model show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile

app = typer.Typer()
model_app = typer.Typer(no_args_is_help=True, help="Where a federated model comes from.")


@app.command(rich_help_panel="Models")
def runs(params: ParamsFile = Path("params.yaml")) -> None:
    """The federated runs, newest first: strategy, codec, bytes, success, and which version each became."""
    from zk0.models import versions
    from zk0.params import load_params

    versions.runs(Path.cwd(), load_params(params))


@app.command(rich_help_panel="Models")
def compare(
    first: Annotated[str, typer.Argument(help="A version, @champion, @challenger, base, or a checkpoint folder.")],
    second: Annotated[str, typer.Argument(help="The same; the gain is the first's over this one.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="Judge both again, on the prepared data and scenes of these params.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Compare two models on the scenes that both met, task by task and overall."""
    from zk0.models import compare
    from zk0.params import load_params

    compare.compare(Path.cwd(), load_params(params), first, second, anew)


@app.command(rich_help_panel="Models")
def promote(
    version: int,
    force: Annotated[bool, typer.Option("--force", help="Whatever the safety check and the test say.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Make a version the champion, from which nightly runs start, if it is safe and better than the present one."""
    from zk0.models import versions
    from zk0.params import load_params

    versions.promote(Path.cwd(), load_params(params), version, force)


@app.command(rich_help_panel="Models")
def demote(params: ParamsFile = Path("params.yaml")) -> None:
    """Give the champion's place back to the version that had it before."""
    from zk0.models import versions
    from zk0.params import load_params

    versions.demote(Path.cwd(), load_params(params))


@app.command(rich_help_panel="Models")
def publish(
    version: int,
    to: Annotated[str, typer.Option("--to", help="hub:OWNER/NAME, or local:FOLDER.")],
    private: Annotated[bool, typer.Option("--private", help="Make the Hub's repository a private one.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Push a version's checkpoint and its model card to the Hub, or write both into a folder."""
    from zk0.models import versions
    from zk0.params import load_params

    versions.publish(Path.cwd(), load_params(params), version, to, private)


@model_app.command("show")
def model_show(
    version: int,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of it, for programs.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """From a model version to its data, params and code, and the commands that bring them back."""
    from zk0.models import versions
    from zk0.params import load_params

    versions.show(Path.cwd(), load_params(params), version, as_json)
