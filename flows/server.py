"""The server of a federation over a network, in the eight documented steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks.rounds import run_rounds, unchanged_rounds
from tasks.server import rounds_of, steps_of
from tasks.steps import WayOn, by_hand, leaves_context, run_name
from zk0.network.server.steps import (
    ROUND_STEPS,
    Serving,
    initialise,
    monitor,
    register,
    select_strategy,
    validate_security,
)

_way = WayOn(
    "The federation",
    "Complete rounds are kept, and the sites stay as they are. Run `zk0 server run` or this "
    "deployment again: it goes on from the last complete round.",
)


@flow(name="server", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
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
    with leaves_context(root, "server", priority) as outcomes:
        serving = Serving.open(root, wait_s=wait_s, min_sites=min_sites, sites=",".join(sites or []))
        steps = steps_of(serving, outcomes)
        steps.run(
            initialise,
            select_strategy,
            register,
        )
        run_rounds(rounds_of(serving), ROUND_STEPS, serving.params.federation.rounds, "federation", outcomes)
        steps.run(
            monitor,
            validate_security,
        )
    if unchanged_rounds(outcomes, ROUND_STEPS):
        return Completed(name="Unchanged", message="the federation was complete before")
    return Completed(message=f"global model in {root / 'checkpoints'}")


if __name__ == "__main__":
    by_hand(server)
