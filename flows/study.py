"""Does federation help? Run a study piece by piece, and render its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks.steps import run_name, tells_how_to_go_on
from tasks.study import plan_study, render_results, run_arm, show_study

_tell = tells_how_to_go_on(
    "The study",
    "Complete pieces are kept. Run `zk0 study NAME` or this deployment again: it goes on with those that are missing.",
)


@flow(name="compare", flow_run_name=run_name, on_failure=[_tell], on_crashed=[_tell])
def compare(
    study: Literal[
        "comparison", "personalisation", "rooms", "robustness", "privacy", "privacy-many", "feasibility"
    ] = "comparison",
    quick: bool = False,
) -> Any:
    """Run what is missing of a study. A run that was stopped, or failed, is gone on with by running it again.

    Args:
        study: Which one; docs/comparison.md explains them.
        quick: At small sizes: shows that everything works, and docs/RESULTS.md stays as it is.
    """
    root = Path.cwd()
    for arm in plan_study(root, study, quick):
        run_arm(root, study, arm, quick)
    show_study(root, study, quick)
    if not quick:
        render_results(root)
    return Completed(message=f"{study} is complete")


if __name__ == "__main__":
    compare()
