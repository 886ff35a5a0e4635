"""`zk0 profile`: complete alternatives to params.yaml."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

from zk0.console import console

app = typer.Typer(no_args_is_help=True, help="Complete alternatives to params.yaml.")


@app.command("list")
def profile_list() -> None:
    """Name the profiles."""
    for path in _profiles():
        first = path.read_text().splitlines()[0].lstrip("# ")
        console.print(f"{path.stem:<12} {first}", markup=False)


@app.command("use")
def profile_use(name: str) -> None:
    """Make a profile the params.yaml of this project; the present one is kept as params.yaml.old."""
    from zk0.params import ParamsError, load_params
    from zk0.words import nearest_hint

    source, target = Path("profiles") / f"{name}.yaml", Path("params.yaml")
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
