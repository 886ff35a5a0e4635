"""Changes to the registry that happen together or not at all.

MLflow has no transaction over several calls, so each change notes how to take it back, and a failure
takes all of them back, last first. Who looks meanwhile is kept out by the store's lock. A process
that is killed in between leaves a part; `zk0 track` completes it, being idempotent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion


class Transaction:
    """Changes to the registered model ``name``, each with its way back."""

    def __init__(self, client: MlflowClient, name: str, undo: ExitStack) -> None:
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


@contextmanager
def transaction(client: MlflowClient, name: str) -> Iterator[Transaction]:
    """Changes that are taken back, last first, when the block does not end well."""
    with ExitStack() as undo:
        yield Transaction(client, name, undo)
        undo.pop_all()
