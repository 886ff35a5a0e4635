"""`zk0`: every stage and service as a command.

Nothing heavy is imported until a command runs, so that `zk0 --help` answers at once.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from zk0 import quiet
from zk0.comparison.command import app as study_app
from zk0.console import console
from zk0.data.command import app as data_app

quiet.switch_off()

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Federated training of SmolVLA on SO-100 arms. Run from the project's root.",
)
profile_app = typer.Typer(no_args_is_help=True, help="Complete alternatives to params.yaml.")
base_app = typer.Typer(no_args_is_help=True, help="The embedded base policy.")
features_app = typer.Typer(
    no_args_is_help=True,
    help="What a frozen backbone computes for a frame, kept on disk: see docs/features.md.",
)
model_app = typer.Typer(no_args_is_help=True, help="Where a federated model comes from.")
app.add_typer(model_app, name="model")
app.add_typer(profile_app, name="profile")
app.add_typer(base_app, name="base")
app.add_typer(features_app, name="features")
app.add_typer(study_app, name="study")
app.add_typer(data_app, name="data")

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file to use.")]


def _run_stage(name: str, params_file: Path) -> None:
    """Load params, then the stage's module, and run it; a mendable error ends without traceback."""
    from zk0.params import load_params

    params = load_params(params_file)
    importlib.import_module(f"zk0.stages.{name}").run(Path.cwd(), params)


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

    done = subprocess.run([sys.executable, "-m", "flows.federate"], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    from zk0.files import read_json
    from zk0.stages.summary import comparison_table

    console.print()
    console.print(comparison_table(read_json(Path("results/evaluation.json"))))
    console.print(f"report     {Path('results/report.html').resolve()}", markup=False)
    console.print("models     make ui, then http://127.0.0.1:5000", markup=False)
    console.print("schedules  make up, then http://127.0.0.1:4200", markup=False)


@app.command(rich_help_panel="Start here")
def train(
    data: Annotated[
        str | None,
        typer.Option(help="local:PATH, hub:OWNER/NAME@REVISION, sim:TASK, or a folder's path; never written to."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The training's; alone, go on with it. The data's own by default.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint folder, hub:OWNER/NAME@REVISION, mlflow:MODEL/VERSION or mlflow:@ALIAS. "
            "hub:lerobot/smolvla_base by default."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps. By default 20,000 on CUDA, 4,000 on mps, 1,000 on a CPU."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Frames a step. By default 64, 16, 8.")] = None,
    saves: Annotated[
        int | None, typer.Option(min=1, help="How often to save, and to judge on held-out episodes. 20 by default.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak. By default 1e-4, for a policy below 100 MB 5e-4.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps or auto. cuda where there is one, else cpu.")
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA=POLICY",
            help="A camera's name in the data and for the policy; again for each. DATA= leaves one out.",
        ),
    ] = None,
    fps: Annotated[
        int | None, typer.Option(min=1, help="Frames a second. The folder's own by default, 30 for the Hub's.")
    ] = None,
    convention: Annotated[
        str | None, typer.Option(help="How joints are written: degrees, normalised or so100-old; see docs/data.md.")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="LeRobot's calibration file, for normalised joints.")] = None,
    only: Annotated[str | None, typer.Option(metavar="STEP", help="One step, as 'dataset preparation'.")] = None,
) -> None:
    """Fine-tune SmolVLA on your own data, alone; or go on where a training was stopped. See docs/train.md."""
    from zk0.errors import StageError
    from zk0.names import nearest_hint
    from zk0.trainings import ROUND_STEPS, STEPS, Request, camera_names, open_training

    if only is not None and only not in STEPS:
        raise StageError(f"there is no step '{only}'{nearest_hint(only, STEPS)}")
    if only in ROUND_STEPS[1:]:
        raise StageError(f"'{only}' is a part of every round, which --only '{ROUND_STEPS[0]}' runs")
    training = open_training(
        Path.cwd(),
        Request(
            data=data,
            name=name,
            base=base,
            steps=steps,
            batch=batch,
            saves=saves,
            learning_rate=learning_rate,
            device=device,
            fps=fps,
            cameras=camera_names(camera or []),
            convention=convention,
            calibration=calibration,
        ),
    )
    from zk0.stages import train as stage

    stage.run(training, only)


@app.command(rich_help_panel="Services")
def up(port: Annotated[int, typer.Option(help="The server's, on loopback.")] = 4200) -> None:
    """Start Prefect's server and a worker, with the nightly and weekly schedules."""
    from zk0.deployment.local import start

    url = start(Path.cwd(), port)
    console.print(f"server and worker are up: {url}\nfrom a shell:  export PREFECT_API_URL={url}/api", markup=False)


@app.command(rich_help_panel="Services")
def down() -> None:
    """Stop them."""
    from zk0.deployment.local import stop

    console.print(f"stopped: {', '.join(stop(Path.cwd())) or 'nothing was running'}")


@model_app.command("show")
def model_show(version: int, params: ParamsFile = Path("params.yaml")) -> None:
    """From a model version to its data, params and code, and the commands that bring them back."""
    import json

    from zk0.params import load_params
    from zk0.tracking.lineage import describe_version

    name = load_params(params).tracking.model
    console.print_json(json.dumps(describe_version(Path.cwd(), name, version), default=str))


@app.command(rich_help_panel="Models")
def runs(params: ParamsFile = Path("params.yaml")) -> None:
    """The federated runs, newest first: strategy, codec, bytes, success, and which version each became."""
    from zk0.params import load_params
    from zk0.stages import models

    models.runs(Path.cwd(), load_params(params))


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
    from zk0.params import load_params
    from zk0.stages import models

    models.compare(Path.cwd(), load_params(params), first, second, anew)


@app.command(rich_help_panel="Models")
def promote(
    version: int,
    force: Annotated[bool, typer.Option("--force", help="Whatever the safety check and the test say.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Make a version the champion, from which nightly runs start, if it is safe and better than the present one."""
    from zk0.params import load_params
    from zk0.stages import models

    models.promote(Path.cwd(), load_params(params), version, force)


@app.command(rich_help_panel="Models")
def demote(params: ParamsFile = Path("params.yaml")) -> None:
    """Give the champion's place back to the version that had it before."""
    from zk0.params import load_params
    from zk0.stages import models

    models.demote(Path.cwd(), load_params(params))


@app.command(rich_help_panel="Models")
def publish(
    version: int,
    to: Annotated[str, typer.Option("--to", help="hub:OWNER/NAME, or local:FOLDER.")],
    private: Annotated[bool, typer.Option("--private", help="Make the Hub's repository a private one.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Push a version's checkpoint and its model card to the Hub, or write both into a folder."""
    from zk0.params import load_params
    from zk0.stages import models

    models.publish(Path.cwd(), load_params(params), version, to, private)


@profile_app.command("list")
def profile_list() -> None:
    """Name the profiles."""
    for path in sorted(Path("profiles").glob("*.yaml")):
        first = path.read_text().splitlines()[0].lstrip("# ")
        console.print(f"{path.stem:<12} {first}", markup=False)


@profile_app.command("use")
def profile_use(name: str) -> None:
    """Make a profile the params.yaml of this project; the present one is kept as params.yaml.old."""
    from zk0.names import nearest_hint
    from zk0.params import ParamsError, load_params

    source, target = Path("profiles") / f"{name}.yaml", Path("params.yaml")
    if not source.exists():
        known = [path.stem for path in Path("profiles").glob("*.yaml")]
        raise ParamsError(f"there is no profile '{name}'{nearest_hint(name, known)}")
    load_params(source)
    if target.exists() and target.read_text() != source.read_text():
        shutil.copy(target, "params.yaml.old")
    shutil.copy(source, target)
    console.print(f"params.yaml is now profile '{name}'", markup=False)


@base_app.command("build")
def base_build(
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("models/nano-base"),
    work: Annotated[Path, typer.Option(help="Episodes and resumable state.")] = Path(".cache/base"),
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4500,
    episodes: Annotated[int, typer.Option(help="Demonstrations of each public task.")] = 800,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Record the public mixture and pretrain the embedded base on it; goes on where it stopped."""

    import torch

    from zk0.policy.pretrain import PretrainConfig, pretrain

    torch.set_num_threads(threads)
    pretrain(PretrainConfig(steps=steps, episodes=episodes), work, out, console.print)


@base_app.command("score")
def base_score(
    policy: Annotated[Path, typer.Option(help="A checkpoint of the embedded size.")] = Path("models/nano-base"),
    rollouts: Annotated[int, typer.Option(help="Closed-loop episodes per public task.")] = 50,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Closed-loop success on the public tasks that the base was pretrained on."""

    import torch

    from zk0.data.sim.tasks import PUBLIC
    from zk0.evaluation.intervals import wilson
    from zk0.evaluation.rollouts import roll_out
    from zk0.policy.checkpoint import load_checkpoint

    torch.set_num_threads(threads)
    loaded = load_checkpoint(policy)
    total = 0
    for task in PUBLIC:
        done = sum(r.success for r in roll_out(loaded, task, range(100_000, 100_000 + rollouts)))
        low, high = wilson(done, rollouts)
        console.print(f"{task.name:<16} {done}/{rollouts}  {done / rollouts:.0%} ({low:.0%}-{high:.0%})")
        total += done
    console.print(f"{'all':<16} {total}/{rollouts * len(PUBLIC)}  {total / rollouts / len(PUBLIC):.0%}")


@features_app.command("build")
def features_build(params: ParamsFile = Path("params.yaml")) -> None:
    """Compute the features of all frames ahead of time; goes on where it stopped. Needs `zk0 prepare` first."""
    from zk0.params import load_params
    from zk0.stages import features

    features.build(Path.cwd(), load_params(params))


@features_app.command("size")
def features_size() -> None:
    """What is kept, by backbone, and how large it is."""
    from rich.table import Table

    from zk0.policy.features.places import features_folder, size_text, usage

    folder = features_folder(Path.cwd())
    rows = usage(folder)
    if not rows:
        console.print(f"no features in {folder}", markup=False)
        return
    table = Table("folder", "what", "files", "frames", "computed", "size")
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
    from zk0.params import load_params
    from zk0.stages import features

    features.clear(Path.cwd(), load_params(params), keep_current)


def main() -> None:
    """Entry point: mendable errors are shown as their message."""
    from zk0.errors import StageError
    from zk0.params import ParamsError

    try:
        app()
    except (StageError, ParamsError, FileNotFoundError) as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}")
        raise SystemExit(1) from None
    except ValueError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}")
        raise SystemExit(1) from error


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
