"""The learning rate at points that a reader can compute."""

from __future__ import annotations

import itertools
import math

import pytest

from zk0.params import TrainingParams
from zk0.training.optimizer import learning_rate

PARAMS = TrainingParams(learning_rate=1.0, final_learning_rate=0.2, warmup_steps=4)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),
        (8, 0.2 + 0.8 * 0.5),  # half way: the cosine is 0
        (6, 0.2 + 0.8 * 0.5 * (1 + math.sqrt(0.5))),  # a quarter of the way: cos(45 degrees)
        (12, 0.2),
        (1000, 0.2),
    ],
)
def test_warm_up_then_cosine_then_constant(step: int, expected: float) -> None:
    assert learning_rate(step, PARAMS, decay_steps=12) == pytest.approx(expected)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, TrainingParams(learning_rate=1.0, warmup_steps=0), decay_steps=10) == 1.0


def test_decay_that_ends_with_the_warm_up_drops_at_once() -> None:
    rates = [learning_rate(step, PARAMS, decay_steps=4) for step in range(3, 7)]

    assert rates == pytest.approx([1.0, 1.0, 0.2, 0.2])


def test_rate_never_rises_after_the_warm_up() -> None:
    rates = [learning_rate(step, PARAMS, decay_steps=50) for step in range(4, 60)]

    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
