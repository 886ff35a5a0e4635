"""How the stages of the pipeline are run: DVC decides whether one is stale, Prefect shows and retries it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_client, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_run_logger

from tasks.commands import stream
from tasks.steps import Steps, rename_flow_run, show_data
from zk0.context import StageOutcome
from zk0.params import PARAMS_FILE, load_params
from zk0.pipeline.stages import BENCHMARK, EVALUATE, FEDERATE, PREPARE, REPORT
from zk0.pipeline.summary import comparison_markdown
from zk0.records.files import EventsAsTheyCome, read
from zk0.records.paths import EVENTS
from zk0.records.results import Benchmark, Evaluation
from zk0.steps import Outcome, Step
from zk0.words import markdown_table

if TYPE_CHECKING:
    from zk0.models.nights import Night

_SKIPPED = "didn't change, skipping"
# DVC's advice to someone typing at a prompt, which means nothing in a flow run's log.
_ADVICE = ("To track the changes with git", "git add ", "To enable auto staging", "dvc config core.", "Use `dvc push`")


@task(name="find champion", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=5)
def find_champion(root: Path) -> dict[str, str]:
    """What a nightly run starts from, see :func:`zk0.models.nightly.nightly_start`; its name says so from here on.

    Returns:
        Variables for the stages' commands.
    """
    from zk0.models.nightly import nightly_start, told_start  # MLflow, which most flow runs do without

    params = load_params(root / PARAMS_FILE)
    where = nightly_start(root, params)
    told = told_start(root, params, where)
    get_run_logger().info("%s: starting from %s", told, where or params.policy.base)
    named = {"ZK0_FLOW_RUN_NAME": rename_flow_run(told)}
    return named if where is None else {**named, "ZK0_BASE": where}


def show_nights(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ARG001 - by these names Prefect gives them
    """Nights so far, newest first: one artifact that each renews, a hook of a flow that has ended."""
    if flow_run.parameters.get("start") != "champion":
        return
    from zk0.models.nights import nights_markdown
    from zk0.tracking.lineage import list_runs

    root = Path.cwd()
    rows = list_runs(root, load_params(root / PARAMS_FILE).tracking.experiment)
    table = nights_markdown(rows, _without_a_model(flow.name))
    create_markdown_artifact(key="nights", markdown=table, description="Nights so far, newest first")


def _without_a_model(flow: str) -> list[Night]:
    """Nights in which nothing was new, or that did not come to their end, as Prefect's server knows them."""
    from zk0.models.nights import MOST_NIGHTS, NIGHTLY, UNCHANGED, Night

    ended = FlowRunFilterState(
        name=FlowRunFilterStateName(any_=[UNCHANGED, "Failed", "Crashed", "TimedOut", "Cancelled"])
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[NIGHTLY])),
            flow_run_filter=FlowRunFilter(state=ended),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=MOST_NIGHTS,
        )
    return [
        Night(began, run.state.name or "", run.state.message or "", run.total_run_time.total_seconds())
        for run in found
        if run.state and (began := run.start_time or run.expected_start_time)
    ]


def steps_of(root: Path, outcomes: list[StageOutcome], environment: Mapping[str, str], force: bool = False) -> Steps:
    """The stages as steps of a flow; what they found is shown as artifacts.

    Args:
        root: Project folder.
        outcomes: How steps end goes there.
        environment: Further variables for their commands.
        force: Run them even if nothing that they depend on has changed.
    """

    def do(step: Step[..., Any]) -> Outcome:
        with _progress(root) if step is FEDERATE else nullcontext():
            return _repro(str(step.stage), root, environment, force)

    show = {
        PREPARE: lambda _: show_data(root),
        EVALUATE: lambda _: _show_comparison(root),
        BENCHMARK: lambda _: _show_benchmark(root),
        REPORT: lambda _: _show_report(root),
    }
    return Steps(outcomes, do, show)


def _repro(stage: str, root: Path, environment: Mapping[str, str], force: bool) -> Outcome:
    """Run ``dvc repro --single-item STAGE``; not changed where DVC found nothing to do."""
    command = ["-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # The stage's own command is `zk0`, which stands beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    lines = stream(
        f"stage '{stage}' failed", command, root, environment={"PATH": path, **environment}, leave_out=_ADVICE
    )
    # A stage that DVC restored from its run cache did not run either, but its outputs are new here.
    return Outcome(changed=not any(_SKIPPED in line for line in lines))


def _show_comparison(root: Path) -> None:
    table = comparison_markdown(read(root, Evaluation))
    create_markdown_artifact(key="comparison", markdown=table, description="Base against global model")


def _show_benchmark(root: Path) -> None:
    rows = [(row.name, f"{row.value:.4g}", row.unit, row.detail or "") for row in read(root, Benchmark).rows]
    table = markdown_table(("what", "value", "unit", "detail"), rows, figures=[1])
    create_markdown_artifact(key="benchmark", markdown=table, description="Measured on this machine")


def _show_report(root: Path) -> None:
    link = f"[results/report.html]({(root / 'results' / 'report.html').as_uri()})"
    create_markdown_artifact(key="report", markdown=link, description="The run's report")


@contextmanager
def _progress(root: Path) -> Iterator[None]:
    """Mirror the federation's events as a progress artifact while the block runs."""
    rounds = load_params(root / PARAMS_FILE).federation.rounds
    artifact: Any = create_progress_artifact(progress=0.0, key="federation", description="Rounds completed")
    stop = threading.Event()

    def mirror() -> None:
        shown = 0.0
        with EventsAsTheyCome(root / EVENTS) as events:
            while not stop.wait(1.0):
                saved = (event.round or 0 for event in events.more() if event.event == "save")
                share = 100.0 * max(saved, default=0) / rounds
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
