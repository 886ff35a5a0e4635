"""`zk0 init` lays out a project; `zk0 profile` chooses its params."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zk0.cli.options import PARAMS
from zk0.console import console

if TYPE_CHECKING:
    from zk0.projects.layout import Renewed

app = typer.Typer()
profile_app = typer.Typer(no_args_is_help=True, help="Complete alternatives to params.yaml.")


@app.command(rich_help_panel="Start here")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the project is to be, or is.")],
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Renew what zk0 laid out there; what you have changed stays.")
    ] = False,
) -> None:
    """Lay out a project: params, flows, pipeline and base policies, all that the other commands work with."""
    from zk0.projects import layout

    if upgrade:
        _tell(layout.upgrade(folder))
        return
    count, told = layout.lay_out(folder)
    console.print(f"{folder} is a project of {count} files; {told}", markup=False)
    console.print("params.yaml     every knob of a run, explained; `zk0 profile list` names alternatives", markup=False)
    console.print("models/         base policies that a federation starts from", markup=False)
    console.print("requirements/   the packages that were tested, by role, with their hashes", markup=False)
    console.print(f"next            cd {shlex.quote(str(folder))}, then `zk0 demo`", markup=False)
    console.print("with your data  `zk0 client keys` and `zk0 client join` as a site, `zk0 train` alone", markup=False)


def _tell(done: Renewed) -> None:
    for path in done.written:
        console.print(f"renewed  {path}", markup=False)
    for path in done.removed:
        console.print(f"removed  {path}, no longer a part of zk0", markup=False)
    for path in done.offered:
        console.print(f"kept     {path}, which you have changed; zk0's own is {path}.new", markup=False)
    if not (done.written or done.removed or done.offered):
        console.print("nothing to renew", markup=False)


@profile_app.command("list")
def profile_list() -> None:
    """Name the profiles."""
    for path in _profiles():
        first = path.read_text().splitlines()[0].lstrip("# ")
        console.print(f"{path.stem:<12} {first}", markup=False)


@profile_app.command("use")
def profile_use(name: Annotated[str, typer.Argument(help="One of `zk0 profile list`.")]) -> None:
    """Make a profile the params.yaml of this project; the present one is kept as params.yaml.old."""
    from zk0.params import ParamsError, load_params
    from zk0.words import nearest_hint

    source, target = Path("profiles") / f"{name}.yaml", PARAMS
    if not source.exists():
        known = [path.stem for path in _profiles()]
        raise ParamsError(f"there is no profile '{name}'{nearest_hint(name, known)}")
    load_params(source)
    if target.exists() and target.read_text() != source.read_text():
        shutil.copy(target, "params.yaml.old")
    shutil.copy(source, target)
    console.print(f"params.yaml is now profile '{name}'", markup=False)


def _profiles() -> list[Path]:
    from zk0.params import ParamsError

    if found := sorted(Path("profiles").glob("*.yaml")):
        return found
    raise ParamsError(f"there are no profiles in {Path.cwd()}; they lie in the project's folder profiles/")
