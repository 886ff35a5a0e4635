"""The stages of the pipeline as tasks, under the names a person sees in a flow run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from tasks.steps import StageRun, read_events, run_stage
from zk0.pipeline.summary import comparison_markdown
from zk0.records.files import read
from zk0.records.paths import EVENTS
from zk0.records.results import Benchmark, Evaluation


def _finish(run: StageRun) -> State[StageRun]:
    """Completed, or Unchanged when there was nothing to do."""
    return Completed(name="Completed" if run.changed else "Unchanged", data=run, message=f"{run.seconds:.0f} s")


@task(name="validate environment", cache_policy=NO_CACHE)
def validate_environment(root: Path, environment: dict[str, str]) -> State[StageRun]:
    """Check the machine and resolve sources; always runs."""
    return _finish(run_stage("validate", root, environment=environment))


# Sources may be on a network.
@task(name="prepare data", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[10, 60])
def prepare_data(root: Path, environment: dict[str, str]) -> State[StageRun]:
    """Record or find the data, check it and split it."""
    run = run_stage("prepare", root, environment=environment)
    found = (root / "results" / "data.md").read_text()
    create_markdown_artifact(key="data-check", markdown=found, description="What every source is and was taken for")
    return _finish(run)


@task(name="run federation", cache_policy=NO_CACHE)
def run_federation(root: Path, environment: dict[str, str], rounds: int) -> State[StageRun]:
    """Federate. Not retried: a failed round can be resumed once its cause is mended."""
    with _progress(root / EVENTS, rounds):
        run = run_stage("federate", root, environment=environment)
    return _finish(run)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(root: Path, environment: dict[str, str]) -> State[StageRun]:
    """Compare base and global model."""
    run = run_stage("evaluate", root, environment=environment)
    table = comparison_markdown(read(root, Evaluation))
    create_markdown_artifact(key="comparison", markdown=table, description="Base against global model")
    return _finish(run)


@task(name="benchmark", cache_policy=NO_CACHE)
def benchmark(root: Path, environment: dict[str, str], force: bool = False) -> State[StageRun]:
    """Measure this machine."""
    run = run_stage("benchmark", root, environment=environment, force=force)
    rows = read(root, Benchmark).rows
    lines = ["| what | value | unit | detail |", "| --- | --- | --- | --- |"]
    lines += [f"| {r.name} | {r.value:.4g} | {r.unit} | {r.detail} |" for r in rows]
    create_markdown_artifact(key="benchmark", markdown="\n".join(lines), description="Measured on this machine")
    return _finish(run)


@task(name="report", cache_policy=NO_CACHE)
def report(root: Path, environment: dict[str, str]) -> State[StageRun]:
    """Write the HTML report."""
    run = run_stage("report", root, environment=environment)
    path = root / "results" / "report.html"
    create_markdown_artifact(
        key="report", markdown=f"[results/report.html]({path.as_uri()})", description="The run's report"
    )
    return _finish(run)


# The tracking database may be busy or, when it is a server, away.
@task(name="track", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def track(root: Path, environment: dict[str, str]) -> State[StageRun]:
    """Bring MLflow up to date."""
    return _finish(run_stage("track", root, environment=environment))


@contextmanager
def _progress(events: Path, rounds: int) -> Iterator[None]:
    """Mirror the federation's events as a progress artifact while the block runs."""
    artifact: Any = create_progress_artifact(progress=0.0, key="federation", description="Rounds completed")
    stop = threading.Event()

    def mirror() -> None:
        shown = 0.0
        while not stop.wait(1.0):
            done = max((e.round or 0 for e in read_events(events) if e.event == "save"), default=0)
            share = 100.0 * done / rounds
            if share > shown:
                shown = share
                update_progress_artifact(artifact, progress=min(share, 100.0))

    thread = threading.Thread(target=mirror, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        update_progress_artifact(artifact, progress=100.0)
