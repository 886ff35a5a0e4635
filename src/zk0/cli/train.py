"""`zk0 train`: one owner's data, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zk0.cli.options import Calibration, Cameras, Convention, Device, Fps, LeaveOut

app = typer.Typer()


@app.command(rich_help_panel="Start here")
def train(
    data: Annotated[
        str | None,
        typer.Option(
            help="local:PATH, hub:OWNER/NAME@REVISION, sim:TASK or sim:TASK@ROOM, or a folder's path; never written to."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The training's; alone, go on with it. The data's own by default.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint (local:) folder, hub:OWNER/NAME@REVISION, mlflow:MODEL/VERSION or mlflow:@ALIAS. "
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
    device: Device = None,
    camera: Cameras = None,
    fps: Fps = None,
    convention: Convention = None,
    calibration: Calibration = None,
    leave_out: LeaveOut = None,
    only: Annotated[str | None, typer.Option(metavar="STEP", help="One step, as 'dataset preparation'.")] = None,
) -> None:
    """Fine-tune SmolVLA on your own data, alone; or go on where a training was stopped. See docs/train.md."""
    from zk0.steps import step_named
    from zk0.workspaces.defaults import Request, camera_names
    from zk0.workspaces.folder import open_training
    from zk0.workspaces.training import STEPS, run

    if only is not None:
        step_named(STEPS, only)  # refused before a folder is made
    mine = (data, name, base, device, fps, camera_names(camera), convention, calibration, leave_out)
    run(open_training(Path.cwd(), Request(*mine, steps, batch, saves, learning_rate)), only)
