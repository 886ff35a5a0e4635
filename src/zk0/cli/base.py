"""`zk0 base`: the embedded base policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.console import console

app = typer.Typer(no_args_is_help=True, help="The embedded base policy.")


@app.command("build")
def base_build(
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("models/nano-base"),
    work: Annotated[Path, typer.Option(help="Episodes and resumable state.")] = Path(".cache/base"),
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 4500,
    episodes: Annotated[int, typer.Option(help="Demonstrations of each public task.")] = 800,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Record the public mixture and pretrain the embedded base on it; goes on where it stopped."""

    import torch

    from zk0.training.pretrain import PretrainConfig, pretrain

    torch.set_num_threads(threads)
    pretrain(PretrainConfig(steps=steps, episodes=episodes), work, out, console.print)


@app.command("score")
def base_score(
    policy: Annotated[Path, typer.Option(help="A checkpoint of the embedded size.")] = Path("models/nano-base"),
    rollouts: Annotated[int, typer.Option(help="Closed-loop episodes per public task.")] = 50,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Closed-loop success on the public tasks that the base was pretrained on."""

    import torch

    from zk0.data.sim.tasks import PUBLIC
    from zk0.evaluation.paired import wilson
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
