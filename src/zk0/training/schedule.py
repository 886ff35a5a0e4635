"""The learning rate over the global step, which counts on across rounds."""

from __future__ import annotations

import math

from zk0.params import TrainingParams


def learning_rate(step: int, params: TrainingParams, decay_steps: int) -> float:
    """Linear warm-up, then a cosine from the peak to the final rate, then constant.

    Args:
        step: Global step, counted over all rounds of one site, from 0.
        params: Peak, final rate and warm-up.
        decay_steps: Global step at which the final rate is reached.
    """
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    progress = min(1.0, (step - params.warmup_steps) / max(1, decay_steps - params.warmup_steps))
    span = params.learning_rate - params.final_learning_rate
    return params.final_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * progress))
