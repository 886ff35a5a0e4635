"""No update is longer than the bound, which finds its quantile; noise is Gaussian, and never the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from zk0.federation.privacy.mechanism import add_noise, clip_factor, clipped, exact_norm, next_clip, secure_normal
from zk0.policy.trainable import PIECE


def test_norm_is_over_all_tensors() -> None:
    assert exact_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0], [12.0]])}) == pytest.approx(13.0, rel=1e-15)
    assert exact_norm({"a": torch.full((PIECE + 1,), 2.0)}) == pytest.approx(2 * math.sqrt(PIECE + 1), rel=1e-12)


@pytest.mark.parametrize("bound", [1e-6, 0.3, 1.0, 7.0, 1e6])
def test_clipped_update_is_never_longer_than_the_bound(bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for share in (1e-3, 0.5, 1 - 1e-6, 1 - 1e-8, 1.0, 1 + 1e-8, 1 + 1e-6, 3.0, 1e9):
        for size in (1, 7, 1000):
            update = {"a": torch.randn(size, generator=generator), "b": torch.randn(2, generator=generator)}
            scale = share * bound / exact_norm(update)
            update = {name: tensor * scale for name, tensor in update.items()}

            factor = clip_factor(exact_norm(update), bound)
            result = {name: tensor * factor for name, tensor in update.items()}

            assert exact_norm(result) <= bound
            assert exact_norm(result) == pytest.approx(min(share, 1.0) * bound, rel=1e-5)


def test_short_update_is_left_as_it_is() -> None:
    assert clip_factor(0.0, 1.0) == clip_factor(0.99, 1.0) == 1.0


@pytest.mark.parametrize(("value", "expected"), [(-1.0, 0.0), (0.5, 0.5), (9.0, 2.0), (float("nan"), 2.0)])
def test_loss_counts_as_no_more_than_its_bound(value: float, expected: float) -> None:
    assert clipped(value, 2.0) == expected


@pytest.mark.parametrize("quantile", [0.5, 0.8])
@pytest.mark.parametrize("start", [0.01, 100.0])
def test_bound_finds_the_quantile(quantile: float, start: float) -> None:
    norms = np.random.default_rng(0).lognormal(mean=1.0, sigma=0.5, size=500)
    clip = start
    for _ in range(120):
        clip = next_clip(clip, float((norms <= clip).mean()), quantile, 0.2)

    assert clip == pytest.approx(float(np.quantile(norms, quantile)), rel=0.05)


def test_step_of_the_bound_is_the_published_one() -> None:
    assert next_clip(2.0, 0.9, 0.5, 0.2) == pytest.approx(2.0 * math.exp(-0.2 * 0.4))
    assert next_clip(2.0, 1e6, 0.5, 0.2) == pytest.approx(2.0 / math.e)  # whatever the noise is


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
