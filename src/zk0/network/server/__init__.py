"""The server's side of a federation over a network: its services, its runs, and what is checked of its security."""

from __future__ import annotations

# The eight documented steps of a server, in order.
STEPS = (
    "Flower server initialization",
    "strategy selection",
    "client registration",
    "round orchestration",
    "parameter aggregation",
    "model distribution",
    "performance monitoring",
    "security validation",
)

# Those that every round repeats, and the event that says that one is over: sites have answered when their updates
# are combined, and have the new model when they have judged it.
ROUND_STEPS = dict(zip(STEPS[3:6], ("aggregate", "aggregate", "evaluate"), strict=True))
