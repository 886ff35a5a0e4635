"""The testing workflow in MLflow: one run for each of its runs, with the page; doing it again changes nothing."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from zk0.testing.records import PAGE, RECORD, Validation
from zk0.tracking.metric_names import slug
from zk0.tracking.results import milliseconds
from zk0.tracking.rounds import FINISHED, log_metrics
from zk0.tracking.store import experiment_id, opened, runs

CREATED = "zk0.testing"
VERDICT = "zk0.verdict"
FAILED = "FAILED"


def experiment_name(experiment: str) -> str:
    """Validations have an experiment of their own, beside the federated runs'."""
    return f"{experiment}-testing"


def track_validation(root: Path, experiment: str, validation: Validation) -> str:
    """Put a validation and the page that was written of it into MLflow.

    Args:
        root: The project's root.
        experiment: Of the federated runs, as params name it.
        validation: What to put; its time is its name.

    Returns:
        The MLflow run's id; of the run that was there, if it was.

    Raises:
        TrackingError: The store cannot be opened.
    """
    at = milliseconds(validation.created)
    tags = {
        CREATED: validation.created,
        VERDICT: validation.headline,
        MLFLOW_RUN_NAME: f"testing-{validation.created[:10]}",
        MLFLOW_SOURCE_NAME: "python -m flows.testing",
        MLFLOW_SOURCE_TYPE: "LOCAL",
    }
    if validation.revision:
        tags[MLFLOW_GIT_COMMIT] = validation.revision.partition(",")[0]
    with opened(root, create=True) as client:
        key = experiment_id(client, root.resolve(), experiment_name(experiment))
        found = runs(client, key, f"tags.`{CREATED}` = '{validation.created}'")
        run = found[0] if found else client.create_run(key, start_time=at, tags=tags)
        run_id = str(run.info.run_id)
        if run.info.status in (FINISHED, FAILED):  # any other was cut off, and is filled again
            return run_id
        versions = [Param(f"version/{name}", version) for name, version in validation.packages.items()]
        client.log_batch(run_id, params=versions, tags=[RunTag(name, value) for name, value in tags.items()])
        log_metrics(client, run_id, [*_metrics(validation, at), *_losses(validation, at)])
        for file in (PAGE, RECORD):
            client.log_artifact(run_id, str(root.resolve() / file))
        seconds = sum(step.seconds for step in validation.steps)
        client.set_terminated(run_id, FAILED if validation.failed else FINISHED, at + round(1000 * seconds))
    return run_id


def _metrics(validation: Validation, at: int) -> list[Metric]:
    values = {"steps/failed": float(len(validation.failed))}
    for step in validation.steps:
        values[f"time/{slug(step.name)}_s"] = step.seconds
    for name, suite in validation.suites.items():
        counts = {"passed": suite.passed, "failed": len(suite.failures), "skipped": len(suite.skips)}
        values |= {f"{slug(name)}/{outcome}": float(count) for outcome, count in counts.items()}
    if coverage := validation.coverage:
        values |= {f"coverage/{slug(part.name)}": part.share for part in (coverage.total, *coverage.packages)}
    for row in validation.benchmarks:
        values[f"bench/{slug(row.name)}/ours"] = row.ours
    return [Metric(name, value, at, 0) for name, value in values.items()]


def _losses(validation: Validation, at: int) -> list[Metric]:
    """The simulation's curves, with step = round."""
    found = []
    for one in validation.simulation.rounds if validation.simulation else ():
        found.append(Metric("simulation/held_out_loss", one.held_out_loss, at, one.round))
        if one.train_loss is not None:
            found.append(Metric("simulation/train_loss", one.train_loss, at, one.round))
    return found
