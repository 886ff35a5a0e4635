"""The trainable view: what leaves a site, and what is let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.trainable import (
    PIECE,
    TensorMismatch,
    Tensors,
    check_finite,
    digest_tensors,
    load_trainable,
    trainable_tensors,
    update_norm,
)

# The action expert and the projections of state and action; SmolVLA's fine-tuning default.
TRAINED = ("lm_expert.", "state_proj.", "action_in_proj.", "action_out_proj.", "action_time_mlp_")


def small() -> nn.Linear:
    """Three numbers that train, in two tensors, and one that does not."""
    layer = nn.Linear(2, 1)
    layer.register_parameter("frozen", nn.Parameter(torch.ones(1), requires_grad=False))
    return layer


def test_only_expert_and_projections_train(loaded: LoadedPolicy) -> None:
    tensors = trainable_tensors(loaded.policy)
    others = [name for name, _ in loaded.policy.named_parameters() if name not in tensors]

    assert tensors and all(any(part in name for part in TRAINED) for name in tensors)
    assert others and not any(any(part in name for part in TRAINED) for name in others)
    assert {part for part in TRAINED if any(part in name for name in tensors)} == set(TRAINED)


def test_tensors_are_copies(loaded: LoadedPolicy) -> None:
    tensors = trainable_tensors(loaded.policy)
    before = digest_tensors(tensors)

    with torch.no_grad():
        next(p for p in loaded.policy.parameters() if p.requires_grad).add_(1.0)

    assert digest_tensors(tensors) == before
    assert digest_tensors(trainable_tensors(loaded.policy)) != before


def test_loading_puts_every_number_in_place() -> None:
    layer = small()

    load_trainable(layer, {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})

    assert layer(torch.tensor([10.0, 100.0])).item() == 10 + 200 + 3
    assert trainable_tensors(layer)["weight"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("bias"), r"tensor 'bias' is missing \(1 of 2 are\)"),
        (lambda t: t.update(frozen=torch.ones(1)), r"tensor 'frozen' is not one that trains \(1 are not\)"),
        (lambda t: t.update(weight=torch.ones(2, 1)), r"tensor 'weight' has shape \(2, 1\), expected \(1, 2\)"),
        (lambda t: t.update(bias=torch.ones(1).half()), r"tensor 'bias' is torch.float16, expected torch.float32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_loaded(change: Callable[[Tensors], Any], said: str) -> None:
    layer = small()
    before = trainable_tensors(layer)
    tensors = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}
    change(tensors)

    with pytest.raises(TensorMismatch, match=said):
        load_trainable(layer, tensors)

    assert digest_tensors(trainable_tensors(layer)) == digest_tensors(before)


def test_values_that_are_not_finite_are_counted() -> None:
    check_finite({"a": torch.ones(3)})
    bad = torch.tensor([1.0, float("nan"), float("inf"), float("-inf")])

    with pytest.raises(TensorMismatch, match="tensor 'b' has 3 non-finite values of 4"):
        check_finite({"a": torch.ones(3), "b": bad})


@pytest.mark.parametrize("at", [0, PIECE - 1, PIECE, 2 * PIECE + 2])
def test_one_bad_value_is_found_wherever_it_is(at: int) -> None:
    bad = torch.ones(2 * PIECE + 3)
    bad[at] = float("nan")

    with pytest.raises(TensorMismatch, match=f"tensor 'w' has 1 non-finite values of {2 * PIECE + 3}"):
        update_norm({"w": bad})


def test_norm_is_over_all_tensors() -> None:
    tensors = {"w": torch.tensor([2.0, 3.0]), "b": torch.tensor(6.0), "none": torch.zeros(0)}

    assert update_norm(tensors) == pytest.approx(7.0)
    assert update_norm({}) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_norm_of_many_values_in_every_dtype(dtype: torch.dtype) -> None:
    values = torch.arange(PIECE + 1000).remainder(7).to(dtype)

    assert update_norm({"w": values}) == pytest.approx(float(values.double().norm()), rel=1e-5)


@pytest.mark.parametrize(("value", "dtype"), [(3e38, torch.float32), (6e4, torch.float16), (1e200, torch.float64)])
def test_finite_values_whose_squares_overflow_are_no_error(value: float, dtype: torch.dtype) -> None:
    assert update_norm({"w": torch.tensor([value, -value], dtype=dtype)}) == pytest.approx(value * 2**0.5, rel=1e-3)


def test_digest_does_not_depend_on_order() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(3)

    assert digest_tensors({"a": a, "b": b}) == digest_tensors({"b": b, "a": a})
    assert digest_tensors({"a": torch.stack([a, a], dim=1)[:, 0]}) == digest_tensors({"a": a})  # nor on strides


def test_digest_changes_with_a_bit_a_name_a_shape_and_a_type() -> None:
    tensor = torch.tensor([1.0, 2.0])
    flipped = tensor.clone()
    flipped.view(torch.int32)[1] ^= 1
    assert (flipped - tensor).abs().max() < 1e-6

    digests = [
        digest_tensors(tensors)
        for tensors in (
            {"a": tensor},
            {"a": flipped},
            {"b": tensor},
            {"a": tensor[None]},
            {"a": tensor.view(torch.int32)},
            {"a": tensor[0]},
            {"a": tensor[:0]},
            {},
        )
    ]

    assert len(set(digests)) == len(digests)
