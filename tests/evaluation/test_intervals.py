"""Wilson's interval and the sign test: at values from tables, and against scipy's."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from zk0.evaluation.paired import sign_test, wilson


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


def test_all_that_few_rollouts_can_give_is_as_scipy_has_it() -> None:
    for trials in range(1, 41):
        for successes in range(trials + 1):
            expected = binomtest(successes, trials)
            interval = expected.proportion_ci(0.95, method="wilson")
            assert wilson(successes, trials) == pytest.approx((interval.low, interval.high), abs=1e-12)
            assert sign_test(successes, trials - successes) == pytest.approx(expected.pvalue, rel=1e-12)


def test_nothing_that_differs_tells_nothing_apart() -> None:
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0
