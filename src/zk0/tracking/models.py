"""Global models in MLflow: a light record of every round's, the best and the last as loadable ones."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME

from zk0.checkpoints.reading import CONFIG
from zk0.files import read_json
from zk0.records.run import Round
from zk0.so100 import STATE
from zk0.tracking import TrackingError, metric_names
from zk0.tracking.results import Results
from zk0.tracking.store import logged_models

Which = Literal["best", "last"]
BEST: Which = "best"
LAST: Which = "last"
_MODEL_FILE = "MLmodel"
_CHECKPOINT = "checkpoint"
_SERVING = Path(__file__).with_name("serving.py")
_REQUIREMENTS = ("mlflow", "lerobot", "torch", "torchvision", "transformers", "numpy")
_TASK = "task"
_EXAMPLE_PIXELS = 32


def round_name(number: int) -> str:
    """The name of a round's record."""
    return f"round-{number:04d}"


def checkpoint_folder(root: Path, model: LoggedModel) -> Path:
    """The checkpoint inside a model's files, which is all that zk0 takes of them: no code beside it is run.

    Raises:
        FileNotFoundError: The files are gone.
        TrackingError: What describes them names no folder among them.
    """
    folder = root / model.artifact_location
    try:
        described = yaml.safe_load((folder / _MODEL_FILE).read_text())
        checkpoint = folder / str(described["flavors"]["python_function"]["artifacts"][_CHECKPOINT]["path"])
    except (KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TrackingError(f"{folder / _MODEL_FILE} names no checkpoint; `zk0 track` writes one that does") from error
    if not checkpoint.resolve().is_relative_to(folder.resolve()):
        raise TrackingError(f"{folder / _MODEL_FILE} names {checkpoint}, which is not among the model's own files")
    return checkpoint


def kept_checkpoints(results: Results) -> dict[Which, int]:
    """The checkpoints that are kept whole, and their rounds; one if the last is the best."""
    kept = {BEST: results.run.best_round}
    if results.checkpoint(LAST).digest != results.checkpoint(BEST).digest:
        kept[LAST] = results.run.rounds
    return kept


def ensure_models(client: MlflowClient, results: Results, experiment: str, run_id: str) -> dict[str, LoggedModel]:
    """Add what is missing of the rounds' records and of the best and the last model.

    Returns:
        All of them by name: ``round-0001`` and so on, ``best``, and ``last`` if that is another.
    """
    found = logged_models(client, experiment, run_id)
    steps = {}
    for one in results.rounds[1:]:
        name = round_name(one.round)
        model = found.get(name)
        if model is None:
            found[name] = _record_round(results, one, experiment, run_id)
        elif model.status != LoggedModelStatus.READY:
            found[name] = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        steps[found[name].model_id] = one.round
    for which, number in kept_checkpoints(results).items():
        model = found.get(which)
        if model is None or not _whole(results.root, model):
            found[which] = _save(client, results, which, number, experiment, run_id, model)
        steps[found[which].model_id] = number
    _link(client, run_id, steps)
    return found


def _whole(root: Path, model: LoggedModel) -> bool:
    """Whether a model's files were written to the end and are still there."""
    return bool(model.status == LoggedModelStatus.READY) and (root / model.artifact_location / _MODEL_FILE).is_file()


def _tags(results: Results, number: int, digest: str) -> dict[str, str]:
    # MLflow would fill in the project's present commit, which need not be the run's.
    shown = {MLFLOW_GIT_COMMIT: results.run.git.revision or "", MLFLOW_SOURCE_NAME: "zk0 federate"}
    return {
        **shown,
        **metric_names.identity_tags(results),
        metric_names.ROUND: str(number),
        metric_names.DIGEST: digest,
    }


def _record_round(results: Results, one: Round, experiment: str, run_id: str) -> LoggedModel:
    number, digest = one.round, one.digest or ""
    return mlflow.create_external_model(
        name=round_name(number),
        source_run_id=run_id,
        tags=_tags(results, number, digest),
        params={"round": str(number), "digest": digest, "best": str(number == results.run.best_round).lower()},
        model_type="zk0-round",
        experiment_id=experiment,
    )


def _save(
    client: MlflowClient,
    results: Results,
    which: Which,
    number: int,
    experiment: str,
    run_id: str,
    begun: LoggedModel | None,
) -> LoggedModel:
    """Copy a checkpoint, with the code that serves it, into MLflow; ``begun`` is one left half-written."""
    folder = results.checkpoint_folder(which)
    digest = results.checkpoint(which).digest
    model = begun or client.create_logged_model(
        experiment,
        name=which,
        source_run_id=run_id,
        tags=_tags(results, number, digest),
        params={"round": str(number), "digest": digest},
        model_type="zk0-policy",
    )
    example = _example(results, folder)
    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=run_id,
        metadata={"zk0": _tags(results, number, digest)},
    )
    with tempfile.TemporaryDirectory() as temporary, _quiet():
        mlflow.pyfunc.save_model(
            f"{temporary}/model",
            mlflow_model=described,
            python_model=str(_SERVING),
            artifacts={_CHECKPOINT: folder.relative_to(results.root).as_posix()},
            model_config={"device": "cpu"},
            signature=_signature(example),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
        )
        client.log_model_artifacts(model.model_id, f"{temporary}/model")
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _signature(example: dict[str, Any]) -> ModelSignature:
    """What goes in and out; a model says itself what is wrong with an observation, so MLflow is to let all pass."""
    images = AnyType()  # type: ignore[no-untyped-call]
    kinds: dict[str, Array | DataType] = {STATE: Array(DataType.double), _TASK: DataType.string}
    return ModelSignature(
        inputs=Schema([ColSpec(kinds.get(key, images), key, required=False) for key in example]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        params=ParamSchema([ParamSpec("seed", DataType.long, 0)]),
    )


def _example(results: Results, checkpoint: Path) -> dict[str, Any]:
    """An observation of the true form: the mean state, grey images, a site's task. No frame of an owner is in it."""
    features = read_json(checkpoint / CONFIG)["input_features"]
    (joints,) = features[STATE]["shape"]
    mean = results.run.stats.get(STATE, {}).get("mean", [0.0] * joints)
    grey = np.full((_EXAMPLE_PIXELS, _EXAMPLE_PIXELS, 3), 128).tolist()
    cameras = {name: grey for name, feature in features.items() if feature["type"] == "VISUAL"}
    tasks = [task for site in results.run.sites.values() for task in site.tasks]
    return {STATE: [float(value) for value in mean], **cameras, _TASK: next(iter(tasks), "move")}


def _link(client: MlflowClient, run_id: str, steps: dict[str, int]) -> None:
    """Show models as the run's outputs; MLflow would list one twice if it were linked twice."""
    outputs = client.get_run(run_id).outputs
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    missing = [LoggedModelOutput(model, step) for model, step in steps.items() if model not in linked]
    if missing:
        client.log_outputs(run_id, missing)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow's advice on saving."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
