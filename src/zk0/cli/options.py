"""Options that several commands take, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main
from typer.core import TyperArgument

if TYPE_CHECKING:
    from zk0.params import Params


class _Argument(TyperArgument):
    """An argument whose help is shown: click 8.5, which the Hub's client needs, clears what typer 0.20 has set.

    Flower allows no newer typer.
    """

    def __init__(self, *, help: str | None = None, **given: Any) -> None:
        super().__init__(help=help, **given)
        self.help = help


setattr(typer.main, "TyperArgument", _Argument)  # noqa: B010  # it is not exported

PARAMS = Path("params.yaml")  # the project's own
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file to use.")]
Engine = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="inprocess or ray, in place of params' engine.name; see docs/scale.md."),
]
KeyFolder = Annotated[Path, typer.Option("--folder", help="Where the federation's keys are.")]

# Of an owner's data, and of the machine that trains on it.
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto. cuda where there is one, else cpu.")]
Cameras = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DATA=POLICY",
        help="A camera's name in the data and for the policy; again for each. DATA= leaves one out.",
    ),
]
Fps = Annotated[int | None, typer.Option(min=1, help="Frames a second. The folder's own by default, 30 for the Hub's.")]
Convention = Annotated[
    str | None, typer.Option(help="How joints are written: degrees, normalised or so100-old; see docs/data.md.")
]
Calibration = Annotated[str | None, typer.Option(help="LeRobot's calibration file, for normalised joints.")]
LeaveOut = Annotated[
    list[int] | None,
    typer.Option(metavar="EPISODE", help="An episode that neither trains nor judges; again for each."),
]


def project(params: Path) -> tuple[Path, Params]:
    """The project's root, which is where a command is typed, and its params."""
    from zk0.params import load_params

    return Path.cwd(), load_params(params)


def params_on(file: Path, engine: str | None) -> Params:
    """Params of a file, on another engine where one is named."""
    from zk0.params import load_params, with_changes

    params = load_params(file)
    return params if engine is None else with_changes(params, {"engine.name": engine})
