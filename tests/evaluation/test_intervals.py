"""Wilson's interval at values from tables."""

from __future__ import annotations

import pytest

from zk0.evaluation.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # z^2 / (n + z^2) with z = 1.96
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (8, 10, 0.4902, 0.9433),
        (10, 20, 0.2993, 0.7007),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_known_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_more_confidence_is_wider() -> None:
    narrow, wide = wilson(5, 10, 0.8), wilson(5, 10, 0.99)

    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
