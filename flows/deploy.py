"""Deployment: bring up a federation's services on the server's machine, in the seven documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.states import Completed

from tasks import deploy as steps_of
from tasks.context import leaves_context
from zk0.operations.record import STEPS, Deployment


@flow(name="deploy")
def deploy(priority: Literal["High", "Medium", "Low"] = "Medium") -> Any:
    """Bring up what deployment.yaml names; what is well is left as it is. See docs/operate.md.

    Args:
        priority: For the task context.
    """
    root = Path.cwd()
    calls = (
        steps_of.validate_environment,
        steps_of.review_configuration,
        steps_of.set_up_security,
        steps_of.allocate_resources,
        steps_of.start_services,
        steps_of.set_up_monitoring,
        steps_of.check_health,
    )
    with leaves_context(root, "deploy", "scheduled" if runtime.deployment.id else "manual", priority) as made:
        deployment = Deployment.open(root)
        for step, call in zip(STEPS, calls, strict=True):
            made.run(step, step, lambda call=call: call(deployment, return_state=True))  # type: ignore[misc]
    if made.all_unchanged:
        return Completed(name="Unchanged", message="everything ran, and is well")
    return Completed(message="everything runs, and is well")


if __name__ == "__main__":
    deploy()
