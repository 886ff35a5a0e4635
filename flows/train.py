"""Model training: one owner fine-tunes SmolVLA on their own data, in the nine documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks.rounds import run_rounds, unchanged_rounds
from tasks.steps import WayOn, by_hand, leaves_context, run_name
from tasks.train import rounds_of, steps_of
from zk0.workspaces.defaults import Request
from zk0.workspaces.folder import TRAININGS, open_training
from zk0.workspaces.training import (
    ROUND_STEPS,
    configure,
    load_model,
    prepare_dataset,
    set_up_environment,
    validate_model,
)

_way = WayOn(
    "The training",
    f"What is in `{TRAININGS}/` is kept, and goes on from its last complete round: run `zk0 train --name NAME`, or "
    "this deployment with the parameter `name` alone. What was refused before its first round left nothing.",
)


@flow(name="train", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
def train(
    data: str | None = None,
    name: str | None = None,
    base: str | None = None,
    steps: int | None = None,
    batch: int | None = None,
    saves: int | None = None,
    learning_rate: float | None = None,
    device: Literal["cpu", "cuda", "mps", "auto"] | None = None,
    fps: int | None = None,
    cameras: dict[str, str | None] | None = None,
    convention: Literal["degrees", "normalised", "so100-old"] | None = None,
    calibration: str | None = None,
    leave_out: list[int] | None = None,
    priority: Literal["High", "Medium", "Low"] = "Medium",
) -> Any:
    """Fine-tune on one dataset, or go on with a training that was stopped. See docs/train.md.

    Args:
        data: ``local:PATH``, ``hub:OWNER/NAME@REVISION`` or ``sim:TASK``; none to go on with ``name``.
        name: The training's; the data's own by default.
        base: Starting policy; ``hub:lerobot/smolvla_base`` by default.
        steps: Optimiser steps in all, by default as many as the device does in hours.
        batch: Frames a step, by default by device.
        saves: How often it is saved and judged.
        learning_rate: Peak.
        device: ``cuda`` where there is one, else ``cpu``.
        fps: Frames a second; the data's own by default.
        cameras: Camera of the data to its name for the policy.
        convention: How the joints' values are written.
        calibration: LeRobot's calibration file, for normalised joints.
        leave_out: Episodes that neither train nor judge.
        priority: For the task context.
    """
    root = Path.cwd()
    mine = (data, name, base, device, fps, cameras, convention, calibration, leave_out)
    training = open_training(root, Request(*mine, steps, batch, saves, learning_rate))
    with training.removed_if_refused(), leaves_context(training.folder, "train", priority, keep=root) as outcomes:
        run = steps_of(training, outcomes).run
        run(set_up_environment)
        run(load_model)
        run(prepare_dataset)
        run(configure)
        run_rounds(rounds_of(training), ROUND_STEPS, training.params.federation.rounds, "training", outcomes)
        run(validate_model)
    checkpoint = training.folder / "checkpoints" / "best"
    get_run_logger().info("trained model: %s", checkpoint)
    if unchanged_rounds(outcomes, ROUND_STEPS):
        return Completed(name="Unchanged", message=f"{training.name} was complete before")
    return Completed(message=f"trained, compared with its start and tracked: {checkpoint}")


if __name__ == "__main__":
    by_hand(train)
