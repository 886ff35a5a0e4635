"""The documented steps of model training."""

from __future__ import annotations

# The nine documented steps of model training, in order.
STEPS = (
    "environment setup",
    "model loading",
    "dataset preparation",
    "training configuration",
    "local training",
    "parameter extraction",
    "server communication",
    "model update",
    "validation",
)

# Those that every round repeats: alone, they are a federation of one site.
ROUND_STEPS = STEPS[4:8]
