"""The whole job: validate, prepare, federate, evaluate, benchmark, report, track."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks import federate as stages
from tasks.champion import find_champion
from tasks.context import leaves_context
from zk0.params import load_params
from zk0.words import in_markdown


def tell_how_to_go_on(flow: Any, flow_run: Any, state: Any) -> None:
    """When a run fails or crashes: say what is kept and which command goes on."""
    text = (
        f"The run ended as {state.name}: {in_markdown(str(state.message))}\n\n"
        "Complete rounds are kept. Once the cause is mended, run `dvc repro` or this deployment again: it goes on "
        "from the last complete round and ends at the same model as an undisturbed run."
    )
    create_markdown_artifact(key="failure", markdown=text, description="What happened and how to go on")


@flow(name="federate", on_failure=[tell_how_to_go_on], on_crashed=[tell_how_to_go_on])
def federate(
    start: Literal["base", "champion"] = "base",
    save_as_experiment: bool = False,
    priority: Literal["High", "Medium", "Low"] = "Medium",
) -> Any:
    """Federate one SmolVLA over the sites in params.yaml, compare it with its start, and keep it.

    Args:
        start: Start from params' ``policy.base``, or from MLflow's champion when there is one.
        save_as_experiment: Keep a finished run as a DVC experiment named by its time, not by its strategy and digest.
        priority: For the task context.
    """
    root = Path.cwd()
    rounds = load_params(root / "params.yaml").federation.rounds
    environment = {"ZK0_FLOW_RUN_ID": str(runtime.flow_run.id), "ZK0_FLOW_RUN_NAME": str(runtime.flow_run.name)}
    if save_as_experiment:
        environment["ZK0_DVC_EXPERIMENT"] = f"nightly-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    mode = "scheduled" if runtime.deployment.id else "manual"
    with leaves_context(root, "federate", mode, priority) as steps:
        if start == "champion" and (champion := find_champion(root)):
            environment["ZK0_BASE"] = champion
        for step, stage, call in (
            ("validate environment", "validate", stages.validate_environment),
            ("prepare data", "prepare", stages.prepare_data),
        ):
            steps.run(step, stage, lambda call=call: call(root, environment, return_state=True))  # type: ignore[misc]
        steps.run(
            "run federation", "federate", lambda: stages.run_federation(root, environment, rounds, return_state=True)
        )
        for step, stage, call in (
            ("evaluate", "evaluate", stages.evaluate),
            ("benchmark", "benchmark", stages.benchmark),
            ("report", "report", stages.report),
            ("track", "track", stages.track),
        ):
            steps.run(step, stage, lambda call=call: call(root, environment, return_state=True))  # type: ignore[misc]
        unchanged = steps.all_unchanged
    get_run_logger().info("report: %s   compare runs: make ui", root / "results" / "report.html")
    if unchanged:
        return Completed(name="Unchanged", message="nothing was new")
    return Completed(message="federated, compared, reported and tracked")


if __name__ == "__main__":
    federate()
