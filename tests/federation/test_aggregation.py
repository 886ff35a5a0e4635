"""The weighted mean of updates, against a reader's arithmetic and against Flower's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import flwr.serverapp.strategy as flower
import pytest
import torch
from flower_oracle import aggregate

from zk0.errors import StageError
from zk0.federation.aggregation import StreamingMean
from zk0.policy.trainable import TensorMismatch, Tensors

START = {"w": torch.tensor([1.0, 10.0]), "b": torch.tensor(-1.0)}


def delta(first: float, second: float, bias: float) -> Tensors:
    return {"w": torch.tensor([float(first), float(second)]), "b": torch.tensor(float(bias))}


def test_mean_is_weighted() -> None:
    with StreamingMean(START) as mean:
        mean.fold(delta(1, 0, 4), weight=3)
        mean.fold(delta(-1, 2, 0), weight=1)

        result = mean.finish()

    assert result["w"].tolist() == [(3 - 1) / 4, 2 / 4]
    assert result["b"].item() == 12 / 4
    assert START["w"].tolist() == [1.0, 10.0]


def test_fold_tells_the_norm_and_leaves_the_update_alone() -> None:
    mean, update = StreamingMean(START), delta(2, 3, 6)

    assert mean.fold(update, weight=5) == pytest.approx(7.0)
    mean.fold(update, weight=5)

    assert update["w"].tolist() == [2.0, 3.0] and update["b"].item() == 6.0


def test_one_site_gets_its_own_update() -> None:
    mean = StreamingMean(START)
    mean.fold(delta(1, 2, 3), weight=0.1)

    assert [t.tolist() for t in mean.finish().values()] == [[1.0, 2.0], 3.0]


def test_it_is_what_flowers_fedavg_averages() -> None:
    rng = torch.Generator().manual_seed(1)
    start = {"w": torch.randn(3, 2, generator=rng), "b": torch.tensor(0.5)}
    weights = [480.0, 16.0, 100.0]
    deltas = [{n: torch.randn(t.shape, generator=rng) for n, t in start.items()} for _ in weights]

    mean = StreamingMean(start)
    for update, weight in zip(deltas, weights, strict=True):
        mean.fold(update, weight)
    result = mean.finish()

    for name, tensor in aggregate(flower.FedAvg(), 1, start, deltas, weights).items():
        torch.testing.assert_close(start[name] + result[name], tensor.float(), rtol=1e-6, atol=1e-7)


def test_updates_are_not_kept() -> None:
    """Memory does not grow with the number of sites: an update is free once it is folded."""
    mean = StreamingMean(START)
    kept = []
    for _ in range(3):
        update = delta(1, 2, 3)
        kept += [weakref.ref(tensor) for tensor in update.values()]
        mean.fold(update, weight=1)
        del update

    assert all(reference() is None for reference in kept)


def test_result_is_the_callers_and_the_next_round_begins_anew() -> None:
    mean = StreamingMean(START)
    mean.fold(delta(1, 1, 1), weight=1)
    first = mean.finish()
    mean.fold(delta(3, 3, 3), weight=1)

    first["w"].zero_()

    assert mean.finish()["w"].tolist() == [3.0, 3.0]


def test_any_layout_of_memory_will_do() -> None:
    start = {"w": torch.zeros(2, 3)}
    across = torch.arange(6.0).reshape(3, 2).T
    mean = StreamingMean(start)
    mean.fold({"w": across}, weight=2)
    mean.fold({"w": across.contiguous()}, weight=2)

    result = mean.finish()["w"]

    assert torch.equal(result, across) and result.is_contiguous()


def test_half_precision_is_summed_in_full() -> None:
    """In float16 2048 + 1 is 2048."""
    mean = StreamingMean({"w": torch.zeros(1, dtype=torch.float16)})
    for value in (2048.0, 1.0):
        for _ in range(4):
            mean.fold({"w": torch.tensor([value], dtype=torch.float16)}, weight=1)

    result = mean.finish()["w"]

    assert result.dtype == torch.float32
    assert result.item() == (4 * 2048 + 4) / 8


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(b=torch.tensor(float("nan"))), "tensor 'b' has 1 non-finite values of 1"),
        (lambda d: d.update(w=torch.tensor([float("inf"), 0.0])), "tensor 'w' has 1 non-finite values of 2"),
        (lambda d: d.update(w=torch.zeros(3)), r"tensor 'w' has shape \(3,\), expected \(2,\)"),
        (lambda d: d.update(w=torch.zeros(2).double()), r"tensor 'w' is torch\.float64, expected torch\.float32"),
        (lambda d: d.pop("b"), "tensor 'b' is missing"),
        (lambda d: d.update(c=torch.zeros(1)), "tensor 'c' is not one that trains"),
        (lambda d: d.update(w=torch.tensor([3e38, 3e38])), r"norm of 4.24e\+38, weighted by 1, is beyond float32"),
    ],
)
def test_update_that_does_not_fit_leaves_the_sum_alone(change: Callable[[Tensors], Any], said: str) -> None:
    mean = StreamingMean(START)
    mean.fold(delta(1, 1, 1), weight=1)
    bad = delta(100, 100, 100)
    change(bad)

    with pytest.raises(TensorMismatch, match=said):
        mean.fold(bad, weight=1)

    assert [t.tolist() for t in mean.finish().values()] == [[1.0, 1.0], 1.0]


def test_first_update_may_be_the_bad_one() -> None:
    mean = StreamingMean(START)
    with pytest.raises(TensorMismatch):
        mean.fold(delta(float("nan"), 0, 0), weight=1)
    mean.fold(delta(1, 1, 1), weight=1)

    assert mean.finish()["w"].tolist() == [1.0, 1.0]


def test_huge_finite_updates_are_averaged_or_refused_but_never_overflow() -> None:
    """Their squares are beyond float32; their sum is, too, before it is divided."""
    mean = StreamingMean(START)
    mean.fold(delta(1e38, 0, 0), weight=1)
    mean.fold(delta(1e38, 0, 0), weight=1)
    with pytest.raises(TensorMismatch, match="beyond float32"):
        mean.fold(delta(1.6e38, 0, 0), weight=1)

    assert mean.finish()["w"][0].item() == pytest.approx(1e38)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_must_be_positive_and_finite(weight: float) -> None:
    mean = StreamingMean(START)

    with pytest.raises(ValueError, match="weight must be above 0 and finite"):
        mean.fold(delta(1, 1, 1), weight)
    with pytest.raises(StageError, match="no update to average"):
        mean.finish()
