"""No update is longer than the bound, to the last bit; the bound finds its quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zk0.federation.privacy.mechanism import clip_factor, clipped, exact_norm, next_clip
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
