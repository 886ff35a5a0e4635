"""The registered model: versions, and the aliases ``challenger`` and ``champion``."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from zk0.tracking import DATABASE, metric_names
from zk0.tracking.models import checkpoint_folder
from zk0.tracking.results import Results, TrackingError
from zk0.tracking.store import opened, versions
from zk0.tracking.transaction import Transaction

CHALLENGER = "challenger"
CHAMPION = "champion"


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
            metric_names.ROUND: str(results.best_round),
            metric_names.DIGEST: results.checkpoint("best")["digest"],
        }
        version = changes.create_version(f"models:/{model.model_id}", run_id, model.model_id, tags)
        existing.append(version)
    changes.point(CHALLENGER, max(int(v.version) for v in existing))
    changes.describe(version, _describe(results))
    return version, created


def _describe(results: Results) -> str:
    """One line for the registry's list of versions."""
    run = results.run
    text = f"Round {results.best_round} of {run['rounds']}, {len(run['sites'])} sites"
    if (loss := run.get("best_held_out_loss")) is not None:
        text += f", held-out loss {loss:.4g}"
    if results.evaluation is not None:
        overall = results.evaluation["overall"]["global"]
        if (rate := overall.get("success_rate_seen")) is not None:
            text += f", success on seen tasks {rate:.0%}"
        text += f", safety check {'passed' if results.evaluation['safety']['global']['passed'] else 'failed'}"
    return text


def champion(root: Path, model_name: str) -> Path | None:
    """The champion's checkpoint folder, or None if there is no champion yet.

    Raises:
        TrackingError: There is one, but its files are gone.
    """
    root = root.resolve()
    if not (root / DATABASE).exists():
        return None
    with opened(root) as client:
        try:
            version = client.get_model_version_by_alias(model_name, CHAMPION)
        except MlflowException:
            return None
        folder = version_checkpoint(client, root, version)
    if not (folder / "model.safetensors").is_file():
        raise TrackingError(f"the champion of '{model_name}', version {version.version}, has no checkpoint at {folder}")
    return folder


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
