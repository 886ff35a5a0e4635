"""Quick benchmarks in MLflow: one run for each, its rows as metrics; doing it again changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import xxhash
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from zk0.measuring.history import read_history, regressions
from zk0.measuring.rows import Report
from zk0.tracking.metric_names import slug
from zk0.tracking.results import milliseconds
from zk0.tracking.rounds import FINISHED, log_metrics
from zk0.tracking.store import experiment_id, opened, runs

RECORD = "zk0.benchmark"
MACHINE = "zk0.machine"
REGRESSIONS = "zk0.regressions"
COUNT = "bench/regressions"
_FILE = "benchmark.json"


@dataclass(frozen=True)
class TrackedBenchmarks:
    """What the projection came to.

    Attributes:
        experiment: Name of the MLflow experiment.
        added: Run ids that this call added; empty when everything was there.
    """

    experiment: str
    added: tuple[str, ...]


def experiment_name(experiment: str) -> str:
    """Benchmarks have an experiment of their own, beside the federated runs'."""
    return f"{experiment}-benchmarks"


def track_benchmarks(root: Path, experiment: str, margin: float) -> TrackedBenchmarks:
    """Bring MLflow up to date with the history of quick benchmarks.

    Args:
        root: The project's root.
        experiment: Of the federated runs, as params name it.
        margin: A figure that was worse than before by more than this share is named in the run's tags.

    Raises:
        BenchmarkError: The history is damaged; names the line.
        TrackingError: The store cannot be opened.
    """
    history = read_history(root)
    name = experiment_name(experiment)
    added = []
    with opened(root, create=True) as client:
        key = experiment_id(client, root.resolve(), name)
        known = {
            run.data.tags.get(RECORD): run
            for run in runs(client, key, "")
            if run.info.status == FINISHED and RECORD in run.data.tags
        }
        for place, report in enumerate(history):
            digest = digest_of(report)
            if digest in known:
                continue
            at = milliseconds(report.created)
            worse = regressions(report, history[:place], margin)
            tags = {
                RECORD: digest,
                MACHINE: report.machine_id,
                REGRESSIONS: "; ".join(map(str, worse)) or "none",
                MLFLOW_RUN_NAME: f"bench-{report.created[:10]}",
                MLFLOW_SOURCE_NAME: "make bench-quick",
                MLFLOW_SOURCE_TYPE: "LOCAL",
            }
            unfinished = runs(client, key, f"tags.`{RECORD}` = '{digest}'")
            run = unfinished[0] if unfinished else client.create_run(key, start_time=at, tags=tags)
            run_id = run.info.run_id
            params = [Param("margin", str(margin)), Param("cpu", str(report.machine.get("cpu")))]
            params.append(Param("cores", str(report.machine.get("cores"))))
            client.log_batch(run_id, params=params, tags=[RunTag(tag, value) for tag, value in tags.items()])
            metrics = [Metric(n, value, at, 0) for n, value in metrics_of(report).items()]
            log_metrics(client, run_id, [*metrics, Metric(COUNT, float(len(worse)), at, 0)])
            client.log_text(run_id, json.dumps(report.model_dump(mode="json"), indent=2), _FILE)
            client.set_terminated(run_id, FINISHED, at)
            added.append(run_id)
    return TrackedBenchmarks(name, tuple(added))


def metrics_of(report: Report) -> dict[str, float]:
    """Rows as MLflow names them: ``bench/<row>/ours``, and ``peer``, ``ratio`` and ``limit`` where there are any."""
    metrics: dict[str, float] = {}
    for row in report.rows:
        for part in ("ours", "peer", "ratio", "limit"):
            if (value := getattr(row, part)) is not None:
                metrics[f"bench/{slug(row.name)}/{part}"] = float(value)
    return metrics


def digest_of(report: Report) -> str:
    """Names a report by its content."""
    return xxhash.xxh3_128_hexdigest(json.dumps(report.model_dump(mode="json"), sort_keys=True).encode())
