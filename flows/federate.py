"""The whole job: validate, prepare, federate, evaluate, benchmark, report, track."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks.federate import find_champion, show_nights, steps_of
from tasks.steps import WayOn, all_unchanged, by_hand, leaves_context, of_this_flow_run, run_name
from zk0.params import load_params
from zk0.pipeline.stages import BENCHMARK, EVALUATE, FEDERATE, PREPARE, REPORT, TRACK, VALIDATE

_way = WayOn(
    "The run",
    "Complete rounds are kept. Run this deployment again (or `dvc repro`, if it began from params' own base): it goes "
    "on from the last complete round and ends at the same model as an undisturbed run.",
)


@flow(
    name="federate",
    flow_run_name=run_name,
    on_completion=[show_nights],
    on_failure=[_way.show, show_nights],
    on_crashed=[_way.show, show_nights],
)
@_way.after_a_stop
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
    load_params(root / "params.yaml")  # one that is wrong is refused before anything is shown
    environment = of_this_flow_run()
    if save_as_experiment:
        environment["ZK0_DVC_EXPERIMENT"] = f"nightly-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with leaves_context(root, "federate", priority) as outcomes:
        if start == "champion":
            environment |= find_champion(root)
        steps_of(root, outcomes, environment).run(
            VALIDATE,
            PREPARE,
            FEDERATE,
            EVALUATE,
            BENCHMARK,
            REPORT,
            TRACK,
        )
    get_run_logger().info("report: %s   compare runs: zk0 ui", root / "results" / "report.html")
    if all_unchanged(outcomes):
        return Completed(name="Unchanged", message="nothing was new")
    return Completed(message="federated, compared, reported and tracked")


if __name__ == "__main__":
    by_hand(federate)
