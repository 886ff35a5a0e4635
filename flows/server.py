"""The server of a federation over a network, in the eight documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.states import Completed

from tasks import server as steps_of
from tasks.context import leaves_context
from zk0.network.server.steps import Serving


@flow(name="server")
def server(
    sites: list[str] | None = None,
    min_sites: int = 0,
    wait_s: float = 60.0,
    priority: Literal["High", "Medium", "Low"] = "Medium",
) -> Any:
    """Run the federation with the admitted sites, or go on where a stopped one ended.

    See docs/federate-over-a-network.md.

    Args:
        sites: Only these of the admitted sites.
        min_sites: With so many of them a new run begins (0 = all).
        wait_s: How long to wait for sites that are away.
        priority: For the task context.
    """
    root = Path.cwd()
    mode = "scheduled" if runtime.deployment.id else "manual"
    with leaves_context(root, "server", mode, priority) as made:
        serving = Serving.open(root, wait_s=wait_s, min_sites=min_sites, sites=",".join(sites or []))
        for call in (steps_of.initialise_server, steps_of.select_strategy, steps_of.register_clients):
            made.run(call.name, call.name, lambda call=call: call(serving, return_state=True))  # type: ignore[misc]
        steps_of.run_rounds(serving, made.outcomes)
        for call in (steps_of.monitor_performance, steps_of.validate_security):
            made.run(call.name, call.name, lambda call=call: call(serving, return_state=True))  # type: ignore[misc]
    if steps_of.unchanged_rounds(made.outcomes):
        return Completed(name="Unchanged", message="the federation was complete before")
    return Completed(message=f"global model in {root / 'checkpoints'}")


if __name__ == "__main__":
    server()
