"""Commands about models: `zk0 runs`, `compare`, `promote`, `demote`, `publish`, `zk0 model` and `zk0 base`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import ParamsFile, project
from zk0.console import console

app = typer.Typer()
Version = Annotated[int, typer.Argument(help="Of the registered model, as `zk0 runs` shows them.")]
base_app = typer.Typer(no_args_is_help=True, help="The embedded base policy.")
model_app = typer.Typer(no_args_is_help=True, help="Where a federated model comes from.")


@app.command(rich_help_panel="Models")
def runs(params: ParamsFile = Path("params.yaml")) -> None:
    """The federated runs, newest first: strategy, codec, bytes, success, and which version each became."""
    from zk0.models import versions

    versions.runs(*project(params))


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

    compare.compare(*project(params), first, second, anew)


@app.command(rich_help_panel="Models")
def promote(
    version: Version,
    force: Annotated[bool, typer.Option("--force", help="Whatever the safety check and the test say.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Make a version the champion, from which nightly runs start, if it is safe and better than the present one."""
    from zk0.models import versions

    versions.promote(*project(params), version, force)


@app.command(rich_help_panel="Models")
def demote(params: ParamsFile = Path("params.yaml")) -> None:
    """Give the champion's place back to the version that had it before."""
    from zk0.models import versions

    versions.demote(*project(params))


@app.command(rich_help_panel="Models")
def publish(
    version: Version,
    to: Annotated[str, typer.Option("--to", help="hub:OWNER/NAME, or local:FOLDER.")],
    private: Annotated[bool, typer.Option("--private", help="Make the Hub's repository a private one.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Push a version's checkpoint and its model card to the Hub, or write both into a folder."""
    from zk0.models import versions

    versions.publish(*project(params), version, to, private)


@model_app.command("show")
def model_show(
    version: Version,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of it, for programs.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """From a model version to its data, params and code, and the commands that bring them back."""
    from zk0.models import versions

    versions.show(*project(params), version, as_json)


@base_app.command("build")
def base_build(
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("models/nano-base"),
    work: Annotated[Path, typer.Option(help="Episodes and resumable state.")] = Path(".cache/base"),
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4500,
    episodes: Annotated[int, typer.Option(help="Demonstrations of each public task.")] = 800,
    rooms: Annotated[float, typer.Option(help="Share of them that are recorded each in a room of its own.")] = 0.0,
    start: Annotated[
        Path | None, typer.Option("--from", help="Go on from this checkpoint's weights instead of random ones.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Record the public mixture and pretrain the embedded base on it; goes on where it stopped."""
    import torch

    from zk0.training.pretrain import GOING_ON_RATE, PretrainConfig, pretrain

    torch.set_num_threads(threads)
    config = PretrainConfig(steps=steps, episodes=episodes, rooms=rooms)
    if start:
        config = replace(config, learning_rate=GOING_ON_RATE)
    pretrain(config, work, out, start, console.print)


@base_app.command("score")
def base_score(
    policy: Annotated[Path, typer.Option(help="A checkpoint of the embedded size.")] = Path("models/nano-base"),
    rollouts: Annotated[int, typer.Option(help="Closed-loop episodes per public task.")] = 50,
    rooms: Annotated[
        int, typer.Option(help="Run as many again, dealt to so many rooms that nothing was recorded in (0 = none).")
    ] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Closed-loop success on the public tasks that the base was pretrained on."""
    import torch

    from zk0.data.sim.rooms import PLAIN, UNMET, Room
    from zk0.data.sim.tasks import PUBLIC
    from zk0.evaluation.paired import wilson
    from zk0.evaluation.rollouts import roll_out
    from zk0.policy.checkpoint import load_checkpoint

    torch.set_num_threads(threads)
    loaded = load_checkpoint(policy)
    unmet = [Room.of(number) for number in range(UNMET, UNMET + rooms)]
    seeds = range(100_000, 100_000 + rollouts)
    for where, places in (("", [PLAIN]), (f" in {len(unmet)} rooms", unmet)):
        total = 0
        for task in PUBLIC if places else ():
            done = sum(rollout.success for rollout in roll_out(loaded, task, seeds, rooms=places))
            low, high = wilson(done, rollouts)
            console.print(f"{task.name + where:<28} {done}/{rollouts}  {done / rollouts:.0%} ({low:.0%}-{high:.0%})")
            total += done
        if places:
            tried = rollouts * len(PUBLIC)
            console.print(f"{'all' + where:<28} {total}/{tried}  {total / tried:.0%}")
