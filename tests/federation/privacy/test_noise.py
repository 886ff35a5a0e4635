"""Noise is Gaussian, of the deviation that was asked for, and never the same twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from zk0.federation.privacy.mechanism import add_noise, secure_normal
from zk0.policy.trainable import PIECE

# A test of chance that fails once in a hundred million runs.
RARE = 1e-8


def test_draws_are_standard_normal() -> None:
    draws = secure_normal(200_001)

    assert draws.shape == (200_001,) and draws.dtype == np.float64 and np.isfinite(draws).all()
    assert stats.kstest(draws, "norm").pvalue > RARE
    pairs = draws[:200_000].reshape(2, -1)  # both halves of Box and Muller's pairs
    assert stats.pearsonr(pairs[0], pairs[1]).pvalue > RARE
    assert stats.pearsonr(pairs[0] ** 2, pairs[1] ** 2).pvalue > RARE


def test_noise_has_the_deviation_asked_for() -> None:
    """Squares of n draws over their variance are chi-squared with n degrees of freedom."""
    tensors = {"a": torch.zeros(PIECE + 7), "b": torch.zeros(3, 5), "c": torch.tensor(0.0)}

    add_noise(tensors.values(), 0.25)

    values = torch.cat([tensor.reshape(-1).double() for tensor in tensors.values()]).numpy()
    low, high = stats.chi2.ppf([RARE, 1 - RARE], len(values))
    assert low < (values**2).sum() / 0.25**2 < high
    assert abs(values.mean()) < 6 * 0.25 / len(values) ** 0.5


def test_noise_is_added_to_what_is_there() -> None:
    tensor = torch.full((1000,), 5.0)

    add_noise([tensor], 1e-3)

    assert (tensor - 5).abs().max() < 0.01 and len(tensor.unique()) > 500


def test_no_seed_gives_the_same_noise_again() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = secure_normal(100)
    torch.manual_seed(1)
    np.random.seed(1)

    assert not np.intersect1d(first, secure_normal(100)).size


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan"), float("inf")])
def test_no_noise_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="deviation must be above 0 and finite"):
        add_noise([torch.zeros(2)], deviation)
