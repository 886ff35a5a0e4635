"""A site's recordings as an MLflow dataset: what they are by digest, never the recordings themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import register_dataset_source
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

from zk0.tracking.results import Results, TrackingError

_SOURCE_KEYS = ("source", "revision", "root", "digest")  # the digest as a whole: MLflow keeps 36 characters of it
_PROFILE_KEYS = ("role", "robot_type", "fps", "cameras", "tasks", "train_frames", "held_out_frames")


class RecordingsSource(DatasetSource):
    """Where a site's recordings come from, as params.yaml names it, and where they lie."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._described = dict(described)

    @staticmethod
    def _get_source_type() -> str:
        return "zk0"

    def load(self) -> Path:
        """The recordings' folder, seen from the project's root.

        Raises:
            TrackingError: It is not there.
        """
        folder = Path(self._described["root"])
        if not folder.is_dir():
            raise TrackingError(f"{folder} is not here; `dvc checkout` or `zk0 prepare` brings it back")
        return folder

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        raise NotImplementedError("never asked for: _can_resolve takes nothing")  # MLflow's class wants the method

    def to_dict(self) -> dict[str, Any]:
        return dict(self._described)

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> Self:
        return cls(source_dict)


register_dataset_source(RecordingsSource)  # type: ignore[arg-type]


def dataset_inputs(results: Results, site: str | None = None) -> list[DatasetInput]:
    """One input per site and unseen task, or that of one site."""
    inputs = []
    for key, context in (("sites", "training"), ("unseen", "evaluation")):
        for name, manifest in results.run.get(key, {}).items():
            if site is None or (site == name and key == "sites"):
                inputs.append(_input(name, manifest, context))
    return inputs


def _input(name: str, manifest: Mapping[str, Any], context: str) -> DatasetInput:
    profile = {key: manifest[key] for key in _PROFILE_KEYS if key in manifest}
    for part in ("train_episodes", "held_out_episodes"):
        profile[part] = len(manifest.get(part, []))
    dataset = Dataset(
        name=name,
        digest=manifest["digest"][:MAX_DATASET_DIGEST_SIZE],
        source_type=RecordingsSource._get_source_type(),
        source=RecordingsSource({key: manifest.get(key) for key in _SOURCE_KEYS}).to_json(),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])
