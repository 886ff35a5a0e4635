"""`zk0`: every stage and service as a command.

Nothing heavy is imported until a command runs, so that `zk0 --help` answers at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from zk0 import runtime_env
from zk0.cli.base import app as base_app
from zk0.cli.client import app as client_app
from zk0.cli.data import app as data_app
from zk0.cli.features import app as features_app
from zk0.cli.models import app as models_app
from zk0.cli.models import model_app
from zk0.cli.operate import app as operate_app
from zk0.cli.operate import deploy_app
from zk0.cli.options import ParamsFile
from zk0.cli.profile import app as profile_app
from zk0.cli.security import app as security_app
from zk0.cli.server import app as server_app
from zk0.cli.sites import app as site_app
from zk0.cli.study import app as study_app
from zk0.cli.train import app as train_app
from zk0.console import console

runtime_env.switch_off()

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Federated training of SmolVLA on SO-100 arms. Run from the project's root.",
)
app.add_typer(train_app)
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

# Stages that take long and write where the others read: two of them at once would spoil each other's files.
_ALONE = ("prepare", "federate", "evaluate", "benchmark")


def _run_stage(name: str, params_file: Path) -> None:
    """Load params, then the stage's module, and run it; a mendable error ends without traceback."""
    from zk0.alone import STAGE_LOCK, alone
    from zk0.params import load_params
    from zk0.pipeline.running import run_stage

    params, root = load_params(params_file), Path.cwd()
    with alone(root / STAGE_LOCK, f"zk0 {name}") if name in _ALONE else nullcontext():
        run_stage(name, root, params)


@app.command(rich_help_panel="Stages")
def validate(params: ParamsFile = Path("params.yaml")) -> None:
    """Check this machine, and resolve every source to a digest."""
    _run_stage("validate", params)


@app.command(rich_help_panel="Stages")
def prepare(params: ParamsFile = Path("params.yaml")) -> None:
    """Record or find the data, check it, split it into sites and held-out episodes."""
    _run_stage("prepare", params)


@app.command(rich_help_panel="Stages")
def federate(params: ParamsFile = Path("params.yaml")) -> None:
    """Run the federation, or go on where a stopped one ended."""
    _run_stage("federate", params)


@app.command(rich_help_panel="Stages")
def evaluate(params: ParamsFile = Path("params.yaml")) -> None:
    """Compare base and global model on held-out data and in closed loop."""
    _run_stage("evaluate", params)


@app.command(rich_help_panel="Stages")
def benchmark(params: ParamsFile = Path("params.yaml")) -> None:
    """Measure step time, latency, bytes and memory on this machine."""
    _run_stage("benchmark", params)


@app.command(rich_help_panel="Stages")
def report(params: ParamsFile = Path("params.yaml")) -> None:
    """Write the HTML report."""
    _run_stage("report", params)


@app.command(rich_help_panel="Stages")
def track(params: ParamsFile = Path("params.yaml")) -> None:
    """Put the run into MLflow; a second time changes nothing."""
    _run_stage("track", params)


@app.command(rich_help_panel="Start here")
def demo() -> None:
    """Run the whole job as a flow, and show what came of it."""
    import subprocess
    import sys

    from zk0.files import new_file

    with new_file(Path.cwd() / "context.json"):  # where nothing can be written, that is told before anything starts
        pass
    done = subprocess.run([sys.executable, "-m", "flows.federate"], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    from zk0.pipeline.summary import comparison_table
    from zk0.records.files import read
    from zk0.records.results import Evaluation

    console.print()
    console.print(comparison_table(read(Path(), Evaluation)))
    console.print(f"report     {Path('results/report.html').resolve()}", markup=False)
    console.print("models     make ui, then http://127.0.0.1:5000", markup=False)
    console.print("schedules  make up, then http://127.0.0.1:4200", markup=False)


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
def up(port: Annotated[int, typer.Option(help="The server's, on loopback.")] = 4200) -> None:
    """Start Prefect's server and a worker, with the nightly and weekly schedules."""
    from zk0.operations.start import start_prefect

    url = start_prefect(Path.cwd(), port)
    console.print(f"server and worker are up: {url}\nfrom a shell:  export PREFECT_API_URL={url}/api", markup=False)


@app.command(rich_help_panel="Services")
def down() -> None:
    """Stop them."""
    from zk0.operations.start import stop_prefect

    console.print(f"stopped: {', '.join(stop_prefect(Path.cwd())) or 'nothing was running'}")


def main() -> None:
    """Entry point: mendable errors are shown as their message."""
    from zk0.errors import StageError, refused_by_disk
    from zk0.params import ParamsError

    try:
        app()
    except (StageError, ParamsError, FileNotFoundError) as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}")
        raise SystemExit(1) from None
    except Exception as error:
        told = refused_by_disk(error) or (str(error) if isinstance(error, ValueError | OSError) else None)
        if told is None:
            raise
        console.print(f"[bold red]error:[/] {_escape(told)}")
        raise SystemExit(1) from error


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
