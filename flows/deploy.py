"""Deployment: bring up a federation's services on the server's machine, in the seven documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks.deploy import steps_of
from tasks.steps import WayOn, all_unchanged, by_hand, leaves_context, run_name
from zk0.operations import deploy as steps

_way = WayOn(
    "The deployment",
    "What runs goes on. Run `zk0 deploy` or this deployment again: it changes only what is not as it is to be.",
)


@flow(name="deploy", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
def deploy(priority: Literal["High", "Medium", "Low"] = "Medium") -> Any:
    """Bring up what deployment.yaml names; what is well is left as it is. See docs/operate.md.

    Args:
        priority: For the task context.
    """
    root = Path.cwd()
    with leaves_context(root, "deploy", priority) as outcomes:
        steps_of(steps.Deployment.open(root), outcomes).run(
            steps.validate_environment,
            steps.review_configuration,
            steps.set_up_security,
            steps.allocate_resources,
            steps.start_services,
            steps.set_up_monitoring,
            steps.check_health,
        )
    if all_unchanged(outcomes):
        return Completed(name="Unchanged", message="everything ran, and is well")
    return Completed(message="everything runs, and is well")


if __name__ == "__main__":
    by_hand(deploy)
