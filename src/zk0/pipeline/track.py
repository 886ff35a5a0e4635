"""track: project the run's files into MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from zk0.console import console
from zk0.models.versions import tell_promotion
from zk0.params import Params
from zk0.records.files import write
from zk0.records.results import Tracking
from zk0.tracking.experiments import Kept, keep
from zk0.tracking.project import FlowRunInfo, track
from zk0.tracking.results import read_results


def run(root: Path, params: Params, results: Path | None = None) -> None:
    """Bring MLflow up to date with the results, and note where the run is.

    Args:
        root: The project's root, with the MLflow store.
        params: The run's.
        results: Folder whose results and checkpoints these are; None is the root.
    """
    flow_run = os.environ.get("ZK0_FLOW_RUN_ID")
    kept = _kept(root) if results is None else None
    result = track(
        root,
        params.tracking.experiment,
        params.tracking.model,
        flow_run=FlowRunInfo(flow_run, os.environ.get("ZK0_FLOW_RUN_NAME")) if flow_run else None,
        kept=kept,
        promotion=params.promotion if params.promotion.automatic else None,
        place=results,
    )
    noted = Tracking(run_id=result.run_id, model=params.tracking.model, model_version=result.model_version)
    write(results or root, noted)
    what = "recorded as" if result.created else "already is"
    for reason in result.skipped:
        console.print(f"left out of MLflow: {reason}", style="yellow", markup=False)
    console.print(f"{what} MLflow run {result.run_id}, {params.tracking.model} version {result.model_version}")
    if kept is not None:
        told = f"kept as DVC experiment {kept.name}" if kept.name else f"not kept as a DVC experiment: {kept.why}"
        console.print(told, style=None if kept.name else "yellow", markup=False)
    if result.promotion is not None:
        tell_promotion(params.tracking.model, result.promotion)


def _kept(root: Path) -> Kept:
    """Keep the run as a DVC experiment, by the name that a flow gave it or by its own."""
    results = read_results(root)
    name = f"{results.run.params['federation']['strategy']}-{results.run.run[:8]}-{results.digest[:4]}"
    return keep(root, os.environ.get("ZK0_DVC_EXPERIMENT") or name)
