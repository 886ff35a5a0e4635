"""Project a run's result files into MLflow; doing it again changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric, Run, RunTag
from mlflow.entities.model_registry import ModelVersion

from zk0.digests import digest_file
from zk0.files import write_text
from zk0.params import PARAMS_FILE, PromotionParams
from zk0.tracking import VIDEOS, metric_names
from zk0.tracking.experiments import Kept
from zk0.tracking.headline import write_headline
from zk0.tracking.models import BEST, ensure_models, kept_checkpoints
from zk0.tracking.plot import ensure_plot
from zk0.tracking.promotion import Promotion, settle_challenger
from zk0.tracking.publish import NAME as CARD
from zk0.tracking.publish import render_card
from zk0.tracking.registry import ensure_version, version_checkpoint
from zk0.tracking.results import Results, read_results
from zk0.tracking.rounds import FINISHED, add_rounds, create_run, log_metrics
from zk0.tracking.store import experiment_id, opened, runs, transaction

_FLOW_RUN = "prefect.flow_run_id"


@dataclass(frozen=True)
class FlowRunInfo:
    """The flow run under whose eyes a federated run was made."""

    id: str
    name: str | None = None
    url: str | None = None

    def tags(self) -> dict[str, str]:
        """As MLflow tags."""
        parts = {"id": self.id, "name": self.name, "url": self.url}
        return {f"prefect.flow_run_{part}": value for part, value in parts.items() if value}


@dataclass(frozen=True)
class TrackResult:
    """What the projection came to.

    Attributes:
        run_id: MLflow's id of the federated run.
        model_version: Version under which its best model is registered.
        created: Whether this call met the run for the first time.
        added: What this call added, in words; empty when everything was there.
        skipped: Files that are there but belong to another run, and what renews them.
        promotion: What was decided on the challenger, if this call decided it.
    """

    run_id: str
    model_version: int
    created: bool
    added: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    promotion: Promotion | None = None


def track(
    root: Path,
    experiment: str,
    model_name: str,
    flow_run: FlowRunInfo | None = None,
    kept: Kept | None = None,
    promotion: PromotionParams | None = None,
    place: Path | None = None,
) -> TrackResult:
    """Bring MLflow up to date with the project's result files.

    A federated run is one MLflow run with one child per site, recognised by the digest of its
    params and that of run.json. What is there is left alone, so the call can be repeated: after a
    stage that was skipped it changes nothing, after one that came later it adds what is new, after
    a projection that was cut off it completes it.

    Args:
        root: The project's root, with ``results/`` and ``checkpoints/``.
        experiment: MLflow experiment; made if there is none.
        model_name: Registered model; made if there is none.
        flow_run: Remembered with the run, unless a flow run is already.
        kept: The DVC experiment that holds the run's data and params, or why there is none.
        promotion: Decide by these whether a newly evaluated challenger becomes the champion, in one
            transaction with its registration; None leaves the champion alone.
        place: Folder with ``results/`` and ``checkpoints/``, where it is not the root: a training's.

    Raises:
        RecordError: A result file is missing or cut short.
        TrackingError: They contradict each other.
    """
    root = root.resolve()
    results = read_results(root, place and place.resolve())
    added: list[str] = []
    with opened(root, create=True) as client:
        experiment_key = experiment_id(client, root, experiment)
        found = _find(client, results, experiment_key)
        if found is None:
            for which in kept_checkpoints(results):
                results.checkpoint_folder(which)
            added.append("run")
        run = found or create_run(client, results, experiment_key)
        run_id = run.info.run_id
        models = ensure_models(client, results, experiment_key, run_id)
        if run.info.status != FINISHED:
            add_rounds(client, results, experiment_key, run_id, models)
        added += _add_final_metrics(client, results, run, models[BEST])
        added += _add_files(client, results, run)
        added += ensure_plot(client, results, run)
        with transaction(client, model_name) as changes:
            version, registered = ensure_version(changes, results, run_id, models[BEST])
            decided = None
            if promotion is not None and results.evaluation is not None:
                decided = settle_challenger(changes, root, version, results.evaluation, promotion)
            write_headline(changes, root, version)
        if registered:
            added.append(f"{model_name} version {version.version}")
        added += _add_links(client, run, version, flow_run, kept)
        added += _add_card(client, root, version, models[BEST])
    return TrackResult(run_id, int(version.version), found is None, tuple(added), results.skipped, decided)


def _find(client: MlflowClient, results: Results, experiment: str) -> Run | None:
    """The run that these files were projected into before."""
    same = f"tags.`{metric_names.RUN}` = '{results.run.run}' AND tags.`{metric_names.RECORD}` = '{results.digest}'"
    return next((run for run in runs(client, experiment, same) if metric_names.SITE not in run.data.tags), None)


def _add_final_metrics(client: MlflowClient, results: Results, run: Run, best: LoggedModel) -> list[str]:
    """What holds of the run as a whole; a figure is logged only if it is new or has changed."""
    known, run_id = run.data.metrics, run.info.run_id
    # A figure that changed is a later measurement; MLflow shows the latest of the last step.
    now = int(time.time() * 1000)
    metrics = []
    for name, value in metric_names.final_metrics(results).items():
        if name not in known:
            metrics.append(Metric(name, value, results.ended_ms, 0, best.model_id))
        elif known[name] != value:
            step = client.get_metric_history(run_id, name)[-1].step
            metrics.append(Metric(name, value, now, step, best.model_id))
    success = metric_names.success_by_round(results)
    judged = {name: value for name, _, value in success}  # the last of each, as MLflow tells it
    for name, step, value in success:
        if known.get(name) != judged[name]:
            metrics.append(Metric(name, value, now if name in known else results.ended_ms, step))
    log_metrics(client, run.info.run_id, metrics)
    return [f"{len(metrics)} final metrics"] if metrics else []


def _add_files(client: MlflowClient, results: Results, run: Run) -> list[str]:
    """The result files themselves, the report, videos, and all params."""
    added, films = [], 0
    for file, folder in results.files():
        logged = results.root / run.info.artifact_uri / (folder or "") / file.name
        if not logged.is_file() or digest_file(logged) != digest_file(results.place / file):
            client.log_artifact(run.info.run_id, str(results.place / file), folder)
            if folder == VIDEOS:
                films += 1
            else:
                added.append(file.name)
    if films:
        added.append(f"videos ({films})")
    if not (results.root / run.info.artifact_uri / PARAMS_FILE).is_file():
        client.log_text(run.info.run_id, yaml.safe_dump(dict(results.run.params), sort_keys=False), str(PARAMS_FILE))
        added.append(str(PARAMS_FILE))
    return added


def _add_card(client: MlflowClient, root: Path, version: ModelVersion, best: LoggedModel) -> list[str]:
    """The model card, beside the checkpoint: inside it, it would make it another model by its digest."""
    place = version_checkpoint(client, root, version).relative_to(root).as_posix()
    file, card = root / best.artifact_location / CARD, render_card(client, root, version, place)
    if file.is_file() and file.read_text() == card:
        return []
    write_text(file, card)
    return ["model card"]


def _add_links(
    client: MlflowClient, run: Run, version: ModelVersion, flow_run: FlowRunInfo | None, kept: Kept | None
) -> list[str]:
    """Name the flow run that made the run, and the DVC experiment that holds it now."""
    wanted: dict[str, str] = {}
    if flow_run and _FLOW_RUN not in run.data.tags:
        wanted |= flow_run.tags()
    if kept and kept.name:
        wanted |= {metric_names.DVC_EXPERIMENT: kept.name, metric_names.NOT_KEPT: ", ".join(kept.without)}
    wanted = {name: value for name, value in wanted.items() if run.data.tags.get(name, "") != value}
    if wanted:
        client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in wanted.items()])
    if kept and kept.name and version.tags.get(metric_names.DVC_EXPERIMENT) != kept.name:
        client.set_model_version_tag(version.name, version.version, metric_names.DVC_EXPERIMENT, kept.name)
    return list(wanted)
