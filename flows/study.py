"""Does federation help? Run a study piece by piece, and render its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks.steps import WayOn, by_hand, run_name
from tasks.study import plan_study, render_results, run_arm, show_study

_way = WayOn(
    "The study",
    "Complete pieces are kept. Run `zk0 study NAME` or this deployment again: it goes on with those that are missing.",
)


@flow(name="compare", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
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
    by_hand(compare)
