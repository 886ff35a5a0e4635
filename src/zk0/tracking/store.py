"""The project's MLflow store: ``mlflow.db`` and ``mlruns/`` at its root.

Artifact locations are kept relative to the root. MLflow itself would write absolute ones, which
break when the project is moved or copied; a bare ``mlflow ui`` and every client that runs from the
root resolve relative ones against it.

Changes to the registry happen together or not at all. MLflow has no transaction over several calls, so each change
notes how to take it back, and a failure takes all of them back, last first. Who looks meanwhile is kept out by the
store's lock. A process that is killed in between leaves a part; `zk0 track` completes it, being idempotent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.tracking import is_tracking_uri_set

from zk0.tracking import ARTIFACTS, DATABASE, TrackingError
from zk0.tracking.view import TAGS

_LONGEST_WAIT_S = 300


@contextlib.contextmanager
def opened(root: Path, create: bool = False) -> Iterator[MlflowClient]:
    """Yield a client of the project's store, with the project's root as working directory.

    One process at a time gets in: who looks what is missing and adds it must not be overtaken.

    Args:
        root: The project's root.
        create: Make the store if there is none yet.

    Raises:
        TrackingError: There is no store or it cannot be read, a leftover in ``mlruns`` would keep
            MLflow from it, or another process holds it for minutes.
    """
    root = root.resolve()
    if not create and not (root / DATABASE).exists():
        raise TrackingError(f"{DATABASE} is missing; `zk0 track` makes it from the results")
    if (root / DATABASE).exists():
        _check_database(root / DATABASE)
    # Such a file makes a bare `mlflow ui` look for a file store, which MLflow 3 then refuses.
    if stray := next((root / ARTIFACTS).glob("[0-9]*/meta.yaml"), None):
        raise TrackingError(f"{stray.relative_to(root)} belongs to an older kind of MLflow store; move it away")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    (root / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    before = mlflow.get_tracking_uri() if is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    with _alone(root / ARTIFACTS / ".lock"), contextlib.chdir(root):
        # Parts of MLflow know only the process's store, not their client's.
        mlflow.set_tracking_uri(f"sqlite:///{root / DATABASE}")
        try:
            yield _client()
        finally:
            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    try:
        with FileLock(lock, timeout=_LONGEST_WAIT_S):
            yield
    except Timeout as error:
        raise TrackingError(f"another process has been tracking for {_LONGEST_WAIT_S} s; try again later") from error


def _check_database(file: Path) -> None:
    """Refuse what is no database: MLflow would try again for minutes."""
    with file.open("rb") as stream:
        start = stream.read(16)
    if start and start != b"SQLite format 3\0":
        raise TrackingError(f"{file.name} is no SQLite database; move it away, and `zk0 track` makes a new one")


def _client() -> MlflowClient:
    # The first client makes the tables, step by step through every version's, and tells of each step.
    logger = logging.getLogger("mlflow.store.db.utils")
    logger.setLevel(logging.WARNING)
    try:
        return MlflowClient()
    except MlflowException as error:
        raise TrackingError(f"MLflow cannot open {DATABASE}: {error}") from error


def experiment_id(client: MlflowClient, root: Path, name: str) -> str:
    """The id of an experiment, made if there is none, that keeps its artifacts below the root.

    Raises:
        TrackingError: The experiment was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        experiment = client.get_experiment(client.create_experiment(name, tags=TAGS))
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the MLflow experiment '{name}' was deleted; `mlflow experiments restore -x "
            f"{experiment.experiment_id}` brings it back, or set tracking.experiment to another name"
        )
    for key, value in TAGS.items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    location = (ARTIFACTS / experiment.experiment_id).as_posix()
    if experiment.artifact_location != location:
        # MLflow's own API turns every relative location into an absolute one.
        with contextlib.closing(sqlite3.connect(root / DATABASE, timeout=30)) as database, database:
            database.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (location, int(experiment.experiment_id)),
            )
    return str(experiment.experiment_id)


def _all[T](page_after: Callable[[str | None], PagedList[T]]) -> list[T]:
    """Every page of a search, as one list."""
    page = page_after(None)
    found = list(page)
    while page.token:
        page = page_after(page.token)
        found += page
    return found


def runs(client: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """All active runs that match, newest first."""
    newest_first = ["start_time DESC"]
    return _all(lambda token: client.search_runs([experiment], filter_string, order_by=newest_first, page_token=token))


def logged_models(client: MlflowClient, experiment: str, run_id: str) -> dict[str, LoggedModel]:
    """A run's logged models, by their names."""
    own = f"source_run_id = '{run_id}'"
    found = _all(lambda token: client.search_logged_models([experiment], own, page_token=token))
    return {model.name: model for model in found}


def versions(client: MlflowClient, model_name: str | None = None) -> list[ModelVersion]:
    """All versions of a registered model, or of all of them; oldest first."""
    own = f"name = '{model_name}'" if model_name else None
    found = _all(lambda token: client.search_model_versions(own, page_token=token))
    return sorted(found, key=lambda version: (version.name, int(version.version)))


class Transaction:
    """Changes to the registered model ``name``, each with its way back."""

    def __init__(self, client: MlflowClient, name: str, undo: contextlib.ExitStack) -> None:
        self.client, self.name, self.undo = client, name, undo

    def create_model(self, description: str) -> None:
        """Make the registered model itself."""
        self.client.create_registered_model(self.name, description=description)
        self.undo.callback(self.client.delete_registered_model, self.name)

    def create_version(self, source: str, run_id: str, model_id: str, tags: dict[str, str]) -> ModelVersion:
        """Register a version. Taken back, its number is not given again."""
        made = self.client.create_model_version(self.name, source, run_id=run_id, model_id=model_id, tags=tags)
        self.undo.callback(self.client.delete_model_version, self.name, made.version)
        return made

    def describe(self, version: ModelVersion, description: str) -> None:
        """Write a version's description, if it is another."""
        if version.description != description:
            self.client.update_model_version(self.name, version.version, description)
            before = version.description or ""  # None would change nothing
            self.undo.callback(self.client.update_model_version, self.name, version.version, before)

    def tag(self, version: int, tags: dict[str, str | None]) -> None:
        """Set a version's tags; None removes one."""
        before = self.client.get_model_version(self.name, str(version)).tags
        for key, value in tags.items():
            if value != before.get(key):
                self._tag(version, key, value)
                self.undo.callback(self._tag, version, key, before.get(key))

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        """Set a run's tags."""
        before = self.client.get_run(run_id).data.tags
        for key, value in tags.items():
            if value != before.get(key):
                self.client.set_tag(run_id, key, value)
                if key in before:
                    self.undo.callback(self.client.set_tag, run_id, key, before[key])
                else:
                    self.undo.callback(self.client.delete_tag, run_id, key)

    def point(self, alias: str, version: int | None) -> None:
        """Let an alias name another version; None removes it."""
        known = self.client.get_registered_model(self.name).aliases
        before = int(known[alias]) if alias in known else None
        if before != version:
            self._point(alias, version)
            self.undo.callback(self._point, alias, before)

    def _tag(self, version: int, key: str, value: str | None) -> None:
        if value is None:
            self.client.delete_model_version_tag(self.name, str(version), key)
        else:
            self.client.set_model_version_tag(self.name, str(version), key, value)

    def _point(self, alias: str, version: int | None) -> None:
        if version is None:
            self.client.delete_registered_model_alias(self.name, alias)
        else:
            self.client.set_registered_model_alias(self.name, alias, str(version))


@contextlib.contextmanager
def transaction(client: MlflowClient, name: str) -> Iterator[Transaction]:
    """Changes that are taken back, last first, when the block does not end well."""
    with contextlib.ExitStack() as undo:
        yield Transaction(client, name, undo)
        undo.pop_all()
