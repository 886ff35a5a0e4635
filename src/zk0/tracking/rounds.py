"""The rounds of a federated run in MLflow: params, datasets, metrics with step = round, one child per site."""

from __future__ import annotations

import getpass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric, Param, Run
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from zk0.tracking import metric_names
from zk0.tracking.datasets import dataset_inputs
from zk0.tracking.models import round_name
from zk0.tracking.results import Results
from zk0.tracking.store import runs

_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
FINISHED = "FINISHED"


def create_run(client: MlflowClient, results: Results, experiment: str) -> Run:
    """Begin the MLflow run of a federated run."""
    identity = metric_names.identity_tags(results)
    tags = {
        **identity,
        MLFLOW_RUN_NAME: f"{identity[metric_names.STRATEGY]}-{identity[metric_names.RUN][:8]}",
        MLFLOW_SOURCE_NAME: "zk0 federate",
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_USER: _user(),
    }
    if revision := identity[metric_names.GIT_REVISION]:
        tags[MLFLOW_GIT_COMMIT] = revision
    if why := results.run.get("stopped"):
        tags[metric_names.STOPPED] = str(why)
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
    params = [Param(key, value) for key, value in metric_names.flatten(results.run["params"]).items()]
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    client.log_inputs(run_id, dataset_inputs(results))
    times = metric_names.round_times(results)
    metrics = []
    for content, at in zip(results.rounds, times, strict=True):
        number = int(content["round"])
        model = models.get(round_name(number))
        for name, value in metric_names.round_metrics(content).items():
            metrics.append(Metric(name, value, at, number, model_id=model.model_id if model else None))
    log_metrics(client, run_id, metrics)
    children = runs(client, experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")
    begun = {child.data.tags.get(metric_names.SITE): child for child in children}
    for site in results.run["sites"]:
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
        tags = {
            **metric_names.identity_tags(results),
            metric_names.SITE: site,
            MLFLOW_PARENT_RUN_ID: run_id,
            MLFLOW_RUN_NAME: site,
            MLFLOW_USER: _user(),
        }
        child = client.create_run(experiment, start_time=results.started_ms, tags=tags)
    elif child.info.status == FINISHED:
        return
    metrics = [
        Metric(name, value, at, int(content["round"]))
        for content, at in zip(results.rounds, times, strict=True)
        for name, value in metric_names.site_metrics(content, site).items()
    ]
    log_metrics(client, child.info.run_id, metrics)
    client.log_inputs(child.info.run_id, dataset_inputs(results, site))
    client.set_terminated(child.info.run_id, FINISHED, results.ended_ms)


def log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log any number of metrics."""
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])


def _user() -> str:
    """Who tracks; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
