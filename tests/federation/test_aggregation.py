"""The weighted mean of updates, against a reader's arithmetic and against Flower's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from zk0.federation.aggregation import Aggregator, update_norm
from zk0.policy.trainable import TensorMismatch, Tensors

START = {"w": torch.tensor([1.0, 10.0]), "b": torch.tensor(-1.0)}


def delta(first: float, second: float, bias: float) -> Tensors:
    return {"w": torch.tensor([float(first), float(second)]), "b": torch.tensor(float(bias))}


def test_mean_is_weighted() -> None:
    mean = Aggregator(START)
    mean.fold(delta(1, 0, 4), weight=3)
    mean.fold(delta(-1, 2, 0), weight=1)

    result = mean.finish()

    assert result["w"].tolist() == [1 + (3 - 1) / 4, 10 + 2 / 4]
    assert result["b"].item() == -1 + 12 / 4
    assert START["w"].tolist() == [1.0, 10.0]


def test_one_site_gets_its_own_model() -> None:
    mean = Aggregator(START)
    mean.fold(delta(1, 2, 3), weight=0.1)

    assert [t.tolist() for t in mean.finish().values()] == [[2.0, 12.0], 2.0]


def test_it_is_what_flowers_fedavg_averages() -> None:
    rng = torch.Generator().manual_seed(1)
    start = {"w": torch.randn(3, 2, generator=rng), "b": torch.tensor(0.5)}
    weights = [480.0, 16.0, 100.0]
    deltas = [{n: torch.randn(t.shape, generator=rng) for n, t in start.items()} for _ in weights]

    mean = Aggregator(start)
    replies = []
    for update, weight in zip(deltas, weights, strict=True):
        mean.fold(update, weight)
        model = ArrayRecord({n: Array((start[n] + update[n]).numpy()) for n in start})
        content = RecordDict({"arrays": model, "metrics": MetricRecord({"num-examples": weight})})
        replies.append(content)
    flower = aggregate_arrayrecords(replies, "num-examples")

    for name, tensor in mean.finish().items():
        np.testing.assert_allclose(tensor.numpy(), flower[name].numpy(), rtol=1e-6, atol=1e-7)


def test_half_precision_is_summed_in_full() -> None:
    """In float16 2048 + 1 is 2048."""
    mean = Aggregator({"w": torch.zeros(1, dtype=torch.float16)})
    for _ in range(4):
        mean.fold({"w": torch.tensor([2048.0], dtype=torch.float16)}, weight=1)
    for _ in range(4):
        mean.fold({"w": torch.tensor([1.0], dtype=torch.float16)}, weight=1)

    result = mean.finish()["w"]

    assert result.dtype == torch.float16
    assert result.item() == pytest.approx((4 * 2048 + 4) / 8, abs=0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(b=torch.tensor(float("nan"))), "tensor 'b' has 1 non-finite values of 1"),
        (lambda d: d.update(w=torch.tensor([float("inf"), 0.0])), "tensor 'w' has 1 non-finite values of 2"),
        (lambda d: d.update(w=torch.zeros(3)), r"tensor 'w' has shape \(3,\), expected \(2,\)"),
        (lambda d: d.update(w=torch.zeros(2).double()), "tensor 'w' is torch.float64, expected torch.float32"),
        (lambda d: d.pop("b"), "tensor 'b' is missing"),
        (lambda d: d.update(c=torch.zeros(1)), "tensor 'c' is not one that trains"),
    ],
)
def test_update_that_does_not_fit_leaves_the_sum_alone(change: Callable[[Tensors], Any], said: str) -> None:
    mean = Aggregator(START)
    mean.fold(delta(1, 1, 1), weight=1)
    bad = delta(100, 100, 100)
    change(bad)

    with pytest.raises(TensorMismatch, match=said):
        mean.fold(bad, weight=1)

    assert [t.tolist() for t in mean.finish().values()] == [[2.0, 11.0], 0.0]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_must_be_positive_and_finite(weight: float) -> None:
    mean = Aggregator(START)

    with pytest.raises(ValueError, match="weight must be above 0 and finite"):
        mean.fold(delta(1, 1, 1), weight)
    with pytest.raises(ValueError, match="no update to average"):
        mean.finish()


def test_norm_is_over_all_tensors() -> None:
    assert update_norm(delta(2, 3, 6)) == 7.0
    assert update_norm({}) == 0.0
