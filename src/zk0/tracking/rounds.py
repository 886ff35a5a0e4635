"""The rounds of a federated run in MLflow: params, datasets, metrics with step = round, one child per site.

A site's recordings are an MLflow dataset: what they are by digest, never the recordings themselves.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import register_dataset_source
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModel, Metric, Param, Run
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)
from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

from zk0.records.run import Site
from zk0.tracking import TrackingError, metric_names
from zk0.tracking.headline import run_name
from zk0.tracking.models import round_name
from zk0.tracking.results import Results
from zk0.tracking.store import runs

_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
FINISHED = "FINISHED"
_SOURCE = {"source", "revision", "root", "digest"}  # the digest as a whole: MLflow keeps 36 characters of it
_PROFILE = {"role", "robot_type", "fps", "cameras", "tasks", "train_frames", "held_out_frames"}


class RecordingsSource(DatasetSource):
    """Where a site's recordings come from, as params.yaml names it, and where they lie."""

    def __init__(self, described: Mapping[str, object]) -> None:
        self._described = dict(described)

    @staticmethod
    def _get_source_type() -> str:
        return "zk0"

    def load(self) -> Path:
        """The recordings' folder, seen from the project's root.

        Raises:
            TrackingError: It is not there.
        """
        folder = Path(str(self._described["root"]))
        if not folder.is_dir():
            raise TrackingError(f"{folder} is not here; `dvc checkout` or `zk0 prepare` brings it back")
        return folder

    @staticmethod
    def _can_resolve(_raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        raise NotImplementedError("never asked for: _can_resolve takes nothing")  # MLflow's class wants the method

    def to_dict(self) -> dict[str, object]:
        """What the source is told by, as MLflow keeps it."""
        return dict(self._described)

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> Self:
        """The source that :meth:`to_dict` told."""
        return cls(source_dict)


register_dataset_source(RecordingsSource)  # type: ignore[arg-type]


def create_run(client: MlflowClient, results: Results, experiment: str) -> Run:
    """Begin the MLflow run of a federated run."""
    identity = metric_names.identity_tags(results)
    tags = {
        **identity,
        MLFLOW_RUN_NAME: run_name(identity, results.evaluation),
        MLFLOW_SOURCE_NAME: "zk0 federate",
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_USER: _user(),
    }
    if revision := identity[metric_names.GIT_REVISION]:
        tags[MLFLOW_GIT_COMMIT] = revision
    if why := results.run.stopped:
        tags[metric_names.STOPPED] = why
    return client.create_run(experiment, start_time=results.started_ms, tags=tags)


def add_rounds(
    client: MlflowClient, results: Results, experiment: str, run_id: str, models: dict[str, LoggedModel]
) -> None:
    """Fill a run, and finish it: a run that is not finished was cut off and may be filled again.

    Args:
        client: Of the project's store.
        results: What to fill it with.
        experiment: The experiment's id.
        run_id: The federated run.
        models: The rounds' records by name; a round's metrics are shown with its model as well.
    """
    params = [Param(key, value) for key, value in metric_names.telling_params(results.run.params).items()]
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    client.log_inputs(run_id, _dataset_inputs(results))
    times = metric_names.round_times(results)
    metrics = []
    for one, at in zip(results.rounds, times, strict=True):
        model = models.get(round_name(one.round))
        for name, value in metric_names.round_metrics(one).items():
            metrics.append(Metric(name, value, at, one.round, model_id=model.model_id if model else None))
    log_metrics(client, run_id, metrics)
    children = runs(client, experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")
    begun = {child.data.tags.get(metric_names.SITE): child for child in children}
    for site in results.run.sites:
        _add_site(client, results, experiment, run_id, site, times, begun.get(site))
    client.set_terminated(run_id, FINISHED, results.ended_ms)


def _add_site(
    client: MlflowClient,
    results: Results,
    experiment: str,
    run_id: str,
    site: str,
    times: list[int],
    child: Run | None,
) -> None:
    """A site's own run below the federated one."""
    if child is None:
        identity = metric_names.identity_tags(results)
        tags = {
            **identity,
            metric_names.SITE: site,
            MLFLOW_PARENT_RUN_ID: run_id,
            MLFLOW_RUN_NAME: f"{run_name(identity, results.evaluation)}/{site}",
            MLFLOW_USER: _user(),
        }
        child = client.create_run(experiment, start_time=results.started_ms, tags=tags)
    elif child.info.status == FINISHED:
        return
    metrics = [
        Metric(name, value, at, one.round)
        for one, at in zip(results.rounds, times, strict=True)
        for name, value in metric_names.site_metrics(one, site).items()
    ]
    log_metrics(client, child.info.run_id, metrics)
    client.log_inputs(child.info.run_id, _dataset_inputs(results, site))
    client.set_terminated(child.info.run_id, FINISHED, results.ended_ms)


def log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log any number of metrics."""
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])


def _dataset_inputs(results: Results, site: str | None = None) -> list[DatasetInput]:
    """One input per site and unseen task, or that of one site."""
    sites = [(name, manifest, "training") for name, manifest in results.run.sites.items() if site in (None, name)]
    unseen = [] if site else [(name, manifest, "evaluation") for name, manifest in results.run.unseen.items()]
    return [_input(*given) for given in [*sites, *unseen]]


def _input(name: str, manifest: Site, context: str) -> DatasetInput:
    profile = manifest.model_dump(mode="json", include=_PROFILE, exclude_unset=True)
    profile["train_episodes"] = len(manifest.train_episodes)
    profile["held_out_episodes"] = len(manifest.held_out_episodes)
    dataset = Dataset(
        name=name,
        digest=str(manifest.digest)[:MAX_DATASET_DIGEST_SIZE],
        source_type=RecordingsSource._get_source_type(),
        source=RecordingsSource(manifest.model_dump(include=_SOURCE)).to_json(),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])


def _user() -> str:
    """Who tracks; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
