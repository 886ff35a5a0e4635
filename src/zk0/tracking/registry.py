"""The registered model: versions, the aliases ``challenger`` and ``champion``, and what each was judged to be."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from zk0.digests import digest_folder
from zk0.evaluation.scores import Scores
from zk0.records.files import read
from zk0.records.paths import EVALUATION
from zk0.records.results import Evaluation
from zk0.tracking import DATABASE, FILES, TrackingError, metric_names
from zk0.tracking.models import checkpoint_folder
from zk0.tracking.results import Results
from zk0.tracking.store import Transaction, opened, versions

CHALLENGER = "challenger"
CHAMPION = "champion"
PROMOTION_RECORD = Path("results/promotion.json")  # the last decision on a version, among its run's files


def ensure_version(
    changes: Transaction, results: Results, run_id: str, model: LoggedModel
) -> tuple[ModelVersion, bool]:
    """The version that is this run's best model, registered if it is not yet.

    The newest version is the challenger.

    Returns:
        The version, and whether this call registered it.
    """
    client, name = changes.client, changes.name
    if aliases(client, name) is None:
        changes.create_model("Global SmolVLA policies, the best of each federated run.")
    existing = versions(client, name)
    version = next((v for v in existing if v.run_id == run_id), None)
    created = version is None
    if version is None:
        tags = {
            **metric_names.identity_tags(results),
            metric_names.ROUND: str(results.run.best_round),
            metric_names.DIGEST: results.checkpoint("best").digest,
        }
        version = changes.create_version(f"models:/{model.model_id}", run_id, model.model_id, tags)
        existing.append(version)
    changes.point(CHALLENGER, max(int(v.version) for v in existing))
    changes.describe(version, f"{_describe(results)}\n\n{_links(client, run_id, model)}")
    return version, created


def _describe(results: Results) -> str:
    """One line for the registry's list of versions."""
    run = results.run
    text = f"Round {run.best_round} of {run.rounds}, {len(run.sites)} sites"
    if run.best_held_out_loss is not None:
        text += f", held-out loss {run.best_held_out_loss:.4g}"
    if results.evaluation is not None:
        if (rate := results.evaluation.overall.trained.success_rate_seen) is not None:
            text += f", success on seen tasks {rate:.0%}"
        text += f", safety check {'passed' if results.evaluation.safety.trained.passed else 'failed'}"
    return text


def _links(client: MlflowClient, run_id: str, model: LoggedModel) -> str:
    """To what is kept elsewhere in MLflow."""
    pages = f"#/experiments/{client.get_run(run_id).info.experiment_id}"
    return (
        f"[videos, report and params]({pages}/runs/{run_id}/artifacts), "
        f"[model card and example]({pages}/models/{model.model_id}/artifacts)"
    )


def champion(root: Path, model_name: str) -> Path | None:
    """The champion's checkpoint folder, or None if there is no champion yet.

    Raises:
        TrackingError: There is one, but its files are gone.
    """
    root = root.resolve()
    if not (root / DATABASE).exists():
        return None
    with opened(root) as client:
        number = (aliases(client, model_name) or {}).get(CHAMPION)
        if number is None:
            return None
        folder = version_checkpoint(client, root, find_version(client, model_name, number))
    if not (folder / "model.safetensors").is_file():
        raise TrackingError(f"the champion of '{model_name}', version {number}, has no checkpoint at {folder}")
    return folder


def champion_number(root: Path, model_name: str) -> int | None:
    """The champion's version, or None if there is no champion yet."""
    if not (root / DATABASE).exists():
        return None
    with opened(root) as client:
        return (aliases(client, model_name) or {}).get(CHAMPION)


def find_version(client: MlflowClient, model_name: str, version: int) -> ModelVersion:
    """One of a model's versions, with its aliases.

    Raises:
        TrackingError: There is none of that number; says which there are.
    """
    try:
        return client.get_model_version(model_name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = ", ".join(str(v.version) for v in versions(client, model_name)) or "none"
        raise TrackingError(f"'{model_name}' has no version {version}; there are: {known}") from error


def version_checkpoint(client: MlflowClient, root: Path, version: ModelVersion) -> Path:
    """Where a version's checkpoint lies.

    Raises:
        TrackingError: Its files are gone, or it was registered by other means than ``track``.
    """
    label = f"'{version.name}', version {version.version},"
    try:
        model = client.get_logged_model(str(version.source).removeprefix("models:/"))
    except MlflowException as error:
        raise TrackingError(
            f"{label} is not one that `zk0 track` registered: its source is {version.source}"
        ) from error
    try:
        return checkpoint_folder(root, model)
    except FileNotFoundError as error:
        raise TrackingError(f"the files of {label} are gone from {model.artifact_location}") from error


def aliases(client: MlflowClient, name: str) -> dict[str, int] | None:
    """Each alias of a registered model and the version it names; None if there is no such model.

    MLflow's search for versions leaves their aliases out.
    """
    try:
        registered = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return {alias: int(version) for alias, version in registered.aliases.items()}


def kept_file(client: MlflowClient, root: Path, version: ModelVersion, file: Path) -> Path:
    """Where a file that is kept with a version's run lies, if it is there."""
    kept: Path = root / client.get_run(str(version.run_id)).info.artifact_uri / FILES / file.name
    return kept


def read_evaluation(client: MlflowClient, root: Path, version: ModelVersion, needed: bool = True) -> Evaluation | None:
    """The evaluation that is kept with a version's run.

    Raises:
        TrackingError: There is none, and it is needed.
    """
    file = kept_file(client, root, version, EVALUATION)
    if file.is_file():
        return read(root, Evaluation, file)
    if not needed:
        return None
    raise TrackingError(
        f"'{version.name}', version {version.version}, was never evaluated: bring its run back "
        f"(`zk0 model show {version.version}`), then `zk0 evaluate` and `zk0 track`"
    )


def label(version: ModelVersion) -> str:
    """How a version is named in a comparison."""
    return f"version {version.version}"


def read_scores(root: Path, model_name: str, model: str) -> Scores:
    """The evaluation of a model.

    Args:
        root: The project's root.
        model_name: The registered model.
        model: A version's number; an alias (``@champion``, ``@challenger``); ``base``, the starting
            policy of this project's last evaluation; an evaluation.json, or a folder that holds one;
            a checkpoint folder that this project's last evaluation judged.

    Raises:
        TrackingError: There is no such model, or it was not evaluated; says what there is.
    """
    root = root.resolve()
    if model.isdecimal() or model.startswith("@"):
        with opened(root) as client:
            version = find_version(client, model_name, _number(client, model_name, model))
            evaluation = read_evaluation(client, root, version)
        assert evaluation is not None
        return Scores.of(evaluation, "global", _named(version, model))
    if model == "base":
        return Scores.of(read(root, Evaluation), "base", "the base policy")
    return _from_path(root, Path(model))


def read_checkpoint(root: Path, model_name: str, model: str) -> tuple[Path, str]:
    """The checkpoint of a model, and how to name it.

    Args:
        root: The project's root.
        model_name: The registered model.
        model: A version's number, an alias, or a checkpoint folder.

    Raises:
        TrackingError: There is no such model.
    """
    if model.isdecimal() or model.startswith("@"):
        with opened(root) as client:
            version = find_version(client, model_name, _number(client, model_name, model))
            return version_checkpoint(client, root.resolve(), version), _named(version, model)
    if not Path(model).is_dir():
        raise TrackingError(f"'{model}' is no model: expected a version's number, @ALIAS, base, or a checkpoint folder")
    return Path(model), model


def _named(version: ModelVersion, model: str) -> str:
    return label(version) + (f" ({model})" if model.startswith("@") else "")


def _number(client: MlflowClient, model_name: str, model: str) -> int:
    if model.isdecimal():
        return int(model)
    known = aliases(client, model_name) or {}
    alias = model.removeprefix("@")
    if alias not in known:
        there = ", ".join(f"@{name} (version {number})" for name, number in sorted(known.items())) or "none"
        raise TrackingError(f"'{model_name}' has no alias '{model}'; there are: {there}")
    return known[alias]


def _from_path(root: Path, path: Path) -> Scores:
    for file in (path, path / EVALUATION.name, path / EVALUATION):
        if file.is_file():
            return Scores.of(read(root, Evaluation, file), "global", str(path))
    if not path.is_dir():
        raise TrackingError(
            f"'{path}' is no model: expected a version's number, @ALIAS, base, an evaluation.json or a folder"
        )
    if (root / EVALUATION).is_file():
        digest, evaluation = digest_folder(path), read(root, Evaluation)
        for model, judged in reversed([*evaluation.models.named()]):
            if judged.digest == digest:
                return Scores.of(evaluation, model, str(path))
    raise TrackingError(
        f"{path} holds no {EVALUATION.name}, and {EVALUATION} judges other models; name a registered "
        "version, or run `zk0 evaluate` where the checkpoint is the run's best"
    )
