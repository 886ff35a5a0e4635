"""`zk0`: every stage and service as a command.

Nothing heavy is imported until a command runs, so that `zk0 --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from zk0 import __version__, runtime_env
from zk0.cli.client import app as client_app
from zk0.cli.data import app as data_app
from zk0.cli.data import features_app
from zk0.cli.models import app as models_app
from zk0.cli.models import base_app, model_app
from zk0.cli.operate import app as operate_app
from zk0.cli.operate import deploy_app
from zk0.cli.options import PARAMS, Engine, ParamsFile, params_on
from zk0.cli.project import app as project_app
from zk0.cli.project import profile_app
from zk0.cli.security import app as security_app
from zk0.cli.security import site_app
from zk0.cli.server import app as server_app
from zk0.cli.study import app as study_app
from zk0.cli.train import app as train_app
from zk0.cli.view import app as view_app
from zk0.console import console, errors
from zk0.pipeline.stages import FEDERATE, STAGE_LOCK, STAGES, VALIDATE, alone

if TYPE_CHECKING:
    from zk0.params import Params
    from zk0.steps import Step

runtime_env.switch_off()

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Federated training of SmolVLA on SO-100 arms. Run from the project's root.",
)
app.add_typer(project_app)
app.add_typer(train_app)
app.add_typer(view_app)
app.add_typer(models_app)
app.add_typer(model_app, name="model")
app.add_typer(profile_app, name="profile")
app.add_typer(base_app, name="base")
app.add_typer(features_app, name="features")
app.add_typer(study_app, name="study")
app.add_typer(data_app, name="data")
app.add_typer(operate_app)
app.add_typer(deploy_app, name="deploy")
app.add_typer(security_app, name="security")
app.add_typer(site_app, name="site")
app.add_typer(client_app, name="client")
app.add_typer(server_app, name="server")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zk0 {__version__}")
        raise typer.Exit


@app.callback()
def _zk0(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show zk0's version, and exit.")
    ] = False,
) -> None:
    pass


# Stages that take long and write where the others read: two of them at once would spoil each other's files.
_ALONE = ("prepare", "federate", "evaluate", "benchmark")


def _run_stage(stage: Step[[Path, Params], None], params: Path, engine: str | None = None) -> None:
    """Load params, then the stage's module, and run it."""
    found, root = params_on(params, engine), Path.cwd()
    with alone(root / STAGE_LOCK, f"zk0 {stage.stage}") if stage.stage in _ALONE else nullcontext():
        stage(root, found)


def _stage_command(stage: Step[[Path, Params], None]) -> Callable[..., None]:
    """What `zk0 STAGE` does."""

    def run(params: ParamsFile = PARAMS) -> None:
        _run_stage(stage, params)

    def federate(params: ParamsFile = PARAMS, engine: Engine = None) -> None:
        _run_stage(stage, params, engine)

    def validate(params: ParamsFile = PARAMS) -> None:
        if params.resolve() == PARAMS.resolve():
            _run_stage(stage, params)
            return
        from zk0.pipeline.validate import checked, show_checks

        show_checks(checked(Path.cwd(), params_on(params, None))[0].checks)
        told = f"nothing was written: a run here is of {PARAMS}; `zk0 profile use` makes a profile of them"
        console.print(told, markup=False)

    return {FEDERATE: federate, VALIDATE: validate}.get(stage, run)


for _stage in STAGES:
    app.command(_stage.stage, help=_stage.about, rich_help_panel="Stages")(_stage_command(_stage))


@app.command(rich_help_panel="Start here")
def demo() -> None:
    """Run the whole job as a flow, and show what came of it."""
    from zk0.cli.watched import STOPPED, run_flow, say_stopped
    from zk0.files import new_file
    from zk0.machine.packages import demand

    demand("all", "`zk0 demo`")
    root, command = Path.cwd(), f"{_how()} demo"
    try:
        with new_file(root / "context.json"):  # where nothing can be written, that is told before anything starts
            pass
        ended = run_flow("flows.federate", root, params_on(Path("params.yaml"), None), command)
    except KeyboardInterrupt:  # before the flow was begun
        say_stopped(root, command)
        raise typer.Exit(STOPPED) from None
    if ended:
        raise typer.Exit(ended)
    from zk0.pipeline.summary import comparison_table
    from zk0.records.files import read
    from zk0.records.results import Evaluation

    console.print()
    console.print(comparison_table(read(Path(), Evaluation)))
    console.print(f"report     {Path('results/report.html').resolve()}", markup=False)
    console.print(f"models     {_how()} ui", markup=False)
    console.print(f"schedules  {_how()} up, then http://127.0.0.1:4200", markup=False)


def _how() -> str:
    """The program that is typed: a clone has a Makefile, another project has none."""
    return "make" if Path("Makefile").is_file() else "zk0"


@app.command(rich_help_panel="Start here")
def simulate(
    folder: Annotated[Path, typer.Option(help="Its own; an earlier simulation there is removed.")] = Path(
        "state/simulation"
    ),
) -> None:
    """Federate three sites on small params in a folder of its own, and judge what it gives. Params stay as they are."""
    from zk0.pipeline import simulate

    simulate.run(Path.cwd(), folder)


@app.command(rich_help_panel="Services")
def ui(
    params: ParamsFile = Path("params.yaml"),
    port: Annotated[int, typer.Option(min=1, max=65534, help="The server's, on loopback.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page, where there is a desktop.")] = True,
) -> None:
    """Serve MLflow's pages until Ctrl-C, and open them at the table of this project's runs."""
    from zk0.machine.desktop import show_in_browser
    from zk0.operations.ui import mlflow_pages
    from zk0.params import load_params

    typer.echo("MLflow is coming up; Ctrl-C stops it", err=True)
    try:
        with mlflow_pages(Path.cwd(), load_params(params).tracking.experiment, port) as (page, server):
            typer.echo(page)
            if browser:
                show_in_browser(page)
            if server is not None:
                server.wait()
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command(rich_help_panel="Services")
def up(port: Annotated[int, typer.Option(help="The server's, on loopback.")] = 4200) -> None:
    """Start Prefect's server and a worker, with the nightly and weekly schedules."""
    from zk0.machine.packages import demand
    from zk0.operations.start import start_prefect

    demand("server", "`zk0 up`")
    url = start_prefect(Path.cwd(), port)
    console.print(f"server and worker are up: {url}\nfrom a shell:  export PREFECT_API_URL={url}/api", markup=False)


@app.command(rich_help_panel="Services")
def down() -> None:
    """Stop what `zk0 up` started."""
    from zk0.operations.start import stop_prefect

    console.print(f"stopped: {', '.join(stop_prefect(Path.cwd())) or 'nothing was running'}")


def main() -> None:
    """Entry point: mendable errors are shown as their message, on standard error."""
    from zk0.errors import StageError, refused_by_disk
    from zk0.machine.packages import missing
    from zk0.params import ParamsError

    try:
        app()
    except (StageError, ParamsError, FileNotFoundError) as error:
        _refuse(str(error))
        raise SystemExit(1) from None
    except Exception as error:
        told = refused_by_disk(error) or missing(error)
        if isinstance(error, ValueError | OSError):
            told = told or str(error)
        if told is None:
            raise
        _refuse(told)
        raise SystemExit(1) from error


def _refuse(text: str) -> None:
    errors.print(Text("error:", "bold red"), Text(text))
