"""train: the nine steps of model training for one owner, as a federation of one site in the training's folder.

What is slow to import, a step imports when it runs: what cannot be is refused at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zk0.console import console
from zk0.data.manifest import read_manifests
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.machine.packages import demand
from zk0.pipeline import prepare, validate
from zk0.pipeline.stages import STAGE_LOCK, alone
from zk0.records.arm_command import way_to_the_arm
from zk0.records.files import read
from zk0.records.paths import EVALUATION, RUN
from zk0.records.results import Evaluation
from zk0.records.run import Run
from zk0.steps import RoundStep, Step, run_steps, step
from zk0.workspaces.folder import Training

if TYPE_CHECKING:
    from zk0.federation.site import Warm

_OPTIONS = {
    "data.cameras": "--camera top=POLICY'S (or --camera top= to leave it out)",
    "data.conventions": "--convention",
    "data.calibrations": "--calibration FILE",
    "data.fps": "--fps",
    "data.leave_out": "--leave-out EPISODE",
}


ROUND_STEPS = (
    RoundStep("local training", "A round's optimiser steps on the own data.", "local-training"),
    RoundStep(
        "parameter extraction", "What the round changed of the tensors that train, encoded as a message.", "extract"
    ),
    RoundStep("server communication", "The server has the update, and found it sound.", "train"),
    RoundStep("model update", "The server's new model is judged and saved.", "save"),
)


def run(training: Training, only: str | None = None) -> None:
    """Run the steps, or go on where a training that was stopped ended.

    Args:
        training: What to train.
        only: One of the steps that can run by themselves; all by default.

    Raises:
        StageError: A step refused; a new training that had not begun to train is removed.
    """
    with training.removed_if_refused():
        try:
            run_steps(STEPS, lambda one: one(training), only=(only,) if only else ())
        except StageError as error:
            raise type(error)(_with_options(str(error))) from error


@step("environment setup", stage="validate")
def set_up_environment(training: Training) -> None:
    """Check the machine; note what the data and the starting policy are at this moment."""
    demand("server", "`zk0 train`, which puts what it trained into MLflow,")
    validate.run(training.folder, training.params)


@step("model loading", asks="hub")
def load_model(training: Training) -> None:
    """Load the starting policy, from the Hub where it is there, and say what it is."""
    policy = _warm(training).start.policy
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in policy.parameters())
    cameras = ", ".join(name.removeprefix("observation.images.") for name in policy.config.image_features)
    console.print(
        f"{training.params.policy.base} on {policy.config.device}: {whole / 1e6:.1f} M parameters, "
        f"{trained / 1e6:.1f} M of them train; it knows cameras {cameras}",
        markup=False,
    )


@step("dataset preparation", stage="prepare", asks="hub")
def prepare_dataset(training: Training) -> None:
    """Record or find the data, check it, keep some episodes from training."""
    prepare.run(training.folder, training.params)


@step("training configuration")
def configure(training: Training) -> None:
    """Hold data and policy against each other, and say what will be done.

    Raises:
        FederationError: The policy does not know the data's cameras.
    """
    from zk0.federation.discovery import check_cameras
    from zk0.policy.start import resolve_device

    params = training.params
    sites, _ = read_manifests(training.folder)
    check_cameras(sites, _warm(training).start, params.data.missing_cameras)
    settings, rounds = params.training, params.federation.rounds
    steps = rounds * settings.local_steps
    passes = steps * settings.batch / sites[0].train_frames
    console.print(
        f"{steps} steps of {settings.batch} frames, {passes:.1f} times through {sites[0].train_frames} frames; "
        f"learning rate {settings.learning_rate:g}, {settings.precision} on {resolve_device(params.policy.device)}; "
        f"saved and judged on {sites[0].held_out_frames} held-out frames every {settings.local_steps} steps\n"
        f"settings are in {training.folder / 'params.yaml'}",
        markup=False,
    )


@step(ROUND_STEPS[0].name, rounds=ROUND_STEPS)
def train(training: Training) -> None:
    """Train, extract the update, send it, take the server's new model, round by round.

    Raises:
        StageError: Another process trains here, or it was stopped; says how to go on.
    """
    from zk0.pipeline import federate

    with alone(training.folder / STAGE_LOCK, training.again):
        if is_trained(training):
            console.print(f"complete before: {training.folder / 'checkpoints'}", markup=False)
            return
        federate.run(training.folder, training.params, again=training.again)


# Its evaluation is kept, so a second try only asks MLflow again, which may be busy or, as a server, away.
@step("validation", stage="evaluate", asks="service")
def validate_model(training: Training) -> None:
    """Compare the trained model with its start on held-out episodes, and put the run into MLflow."""
    from zk0.pipeline import evaluate, track

    best = read(training.folder, Run).checkpoints.best
    if not _is_judged(training, best.digest):
        evaluate.run(training.folder, training.params)
    track.run(training.root, training.params, training.folder)
    console.print(f"trained model: {training.folder / best.path}", style="bold green", markup=False)
    console.print(way_to_the_arm(read(training.folder, Run), read(training.folder, Evaluation)), markup=False)


STEPS: tuple[Step[[Training], None], ...] = (
    set_up_environment,
    load_model,
    prepare_dataset,
    configure,
    train,
    validate_model,
)


def is_trained(training: Training) -> bool:
    """Whether the training was completed with just these settings, data and start, and its checkpoints are whole."""
    from zk0.federation.run import config_digest
    from zk0.federation.start import locked_base, locked_shrink

    folder = training.folder
    if not (folder / RUN).exists():
        return False
    run = read(folder, Run)
    sites, _ = read_manifests(folder)
    wanted = config_digest(training.params, locked_base(folder)[1], sites, locked_shrink(folder))
    kept = (run.checkpoints.best, run.checkpoints.last)
    return run.run == wanted and all(
        (folder / one.path).is_dir() and digest_folder(folder / one.path) == one.digest for one in kept
    )


def _is_judged(training: Training, digest: str) -> bool:
    judged = (training.folder / EVALUATION).exists()
    return judged and read(training.folder, Evaluation).models.trained.digest == digest


def _warm(training: Training) -> Warm:
    """The starting policy, loaded as the rounds will want it, so that they find it loaded."""
    import torch

    from zk0.federation.start import locked_base, warm_start

    torch.set_num_threads(training.params.threads)
    base, _ = locked_base(training.folder)
    return warm_start(training.folder, training.params, base)


def _with_options(text: str) -> str:
    """A refusal that names params, with the options that set them."""
    named = [f"{param}: {option}" for param, option in _OPTIONS.items() if param in text]
    return f"{text}\nAs options of `zk0 train`: {'; '.join(named)}" if named else text
