"""Model training: one owner fine-tunes SmolVLA on their own data, in the nine documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks import train as steps_of
from tasks.context import leaves_context
from zk0.words import in_markdown
from zk0.workspaces import TRAININGS, Request, open_training, removed_if_refused


def tell_how_to_go_on(flow: Any, flow_run: Any, state: Any) -> None:
    """When a training fails or crashes: say what is kept and which command goes on."""
    text = (
        f"The training ended as {state.name}: {in_markdown(str(state.message))}\n\n"
        f"What is in `{TRAININGS}/` is kept, and goes on from its last complete round: run `zk0 train --name NAME`, or "
        "this deployment with the parameter `name` alone. What was refused before its first round left nothing."
    )
    create_markdown_artifact(key="failure", markdown=text, description="What happened and how to go on")


@flow(name="train", on_failure=[tell_how_to_go_on], on_crashed=[tell_how_to_go_on])
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
    training = open_training(
        root,
        Request(
            data,
            name,
            base,
            steps,
            batch,
            saves,
            learning_rate,
            device,
            fps,
            cameras or {},
            convention,
            calibration,
            tuple(leave_out or ()),
        ),
    )
    environment = {"ZK0_FLOW_RUN_ID": str(runtime.flow_run.id), "ZK0_FLOW_RUN_NAME": str(runtime.flow_run.name)}
    mode = "scheduled" if runtime.deployment.id else "manual"
    with removed_if_refused(training), leaves_context(training.folder, "train", mode, priority, keep=root) as made:
        for step, stage, call in (
            ("environment setup", "validate", steps_of.set_up_environment),
            ("model loading", "model loading", steps_of.load_model),
            ("dataset preparation", "prepare", steps_of.prepare_dataset),
            ("training configuration", "training configuration", steps_of.configure_training),
        ):
            made.run(step, stage, lambda call=call: call(training, return_state=True))  # type: ignore[misc]
        steps_of.run_rounds(training, made.outcomes)
        made.run("validation", "evaluate", lambda: steps_of.validate_model(training, environment, return_state=True))
    checkpoint = training.folder / "checkpoints" / "best"
    get_run_logger().info("trained model: %s", checkpoint)
    if steps_of.unchanged_rounds(made.outcomes):
        return Completed(name="Unchanged", message=f"{training.name} was complete before")
    return Completed(message=f"trained, compared with its start and tracked: {checkpoint}")


if __name__ == "__main__":
    train()
