"""Quick benchmarks in MLflow: one run for each, its rows as metrics; doing it again changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from zk0.digests import quick_digest
from zk0.measuring.history import QUICK, Regression, read_history, regressions, remember
from zk0.measuring.rows import Report, read_report
from zk0.params import load_params
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
class Comparison:
    """The last quick benchmarks beside earlier ones.

    Attributes:
        report: The last ones.
        worse: What is worse than before on this kind of machine.
        earlier: How many earlier runs there are on it.
        experiment: Name of the MLflow experiment.
        added: Run ids that MLflow got now; empty where it had them all.
    """

    report: Report
    worse: list[Regression]
    earlier: int
    experiment: str
    added: tuple[str, ...]


def compare_with_earlier(root: Path) -> Comparison:
    """Compare the last quick benchmarks with earlier ones on this machine, remember them, and put them into MLflow.

    Args:
        root: The project's root; its params say by how much a figure may be worse (``benchmark.margin``).

    Raises:
        BenchmarkError: Nothing was measured, or report or history are damaged.
        ParamsError: params.yaml cannot be used.
        TrackingError: MLflow's store cannot be opened.
    """
    params = load_params(root / "params.yaml")
    report, history = read_report(root / QUICK), read_history(root)
    worse = regressions(report, history, params.benchmark.margin)
    earlier = sum(one.machine_id == report.machine_id for one in history if one != report)
    remember(root, report)
    experiment = f"{params.tracking.experiment}-benchmarks"  # their own, beside that of the federated runs
    return Comparison(report, worse, earlier, experiment, track_benchmarks(root, experiment, params.benchmark.margin))


def track_benchmarks(root: Path, experiment: str, margin: float) -> tuple[str, ...]:
    """Bring MLflow up to date with the history of quick benchmarks.

    Args:
        root: The project's root.
        experiment: Their MLflow experiment.
        margin: A figure that was worse than before by more than this share is named in the run's tags.

    Returns:
        Run ids that this call added; none where everything was there.

    Raises:
        BenchmarkError: The history is damaged; names the line.
        TrackingError: The store cannot be opened.
    """
    history = read_history(root)
    added = []
    with opened(root, create=True) as client:
        key = experiment_id(client, root.resolve(), experiment)
        known = {run.data.tags.get(RECORD) for run in runs(client, key, "") if run.info.status == FINISHED}
        for place, report in enumerate(history):
            digest = quick_digest(report.model_dump(mode="json"))
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
    return tuple(added)


def metrics_of(report: Report) -> dict[str, float]:
    """Rows as MLflow names them: ``bench/<row>/ours``, and ``peer``, ``ratio`` and ``limit`` where there are any."""
    metrics: dict[str, float] = {}
    for row in report.rows:
        for part in ("ours", "peer", "ratio", "limit"):
            if (value := getattr(row, part)) is not None:
                metrics[f"bench/{slug(row.name)}/{part}"] = float(value)
    return metrics
