"""AdamW, its kept moments and the proximal pull, on numbers that a reader can compute."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zk0.params import TrainingParams
from zk0.policy.trainable import TensorMismatch, Tensors
from zk0.training.optimizer import LocalOptimizer, Proximal

SETTINGS = TrainingParams(learning_rate=0.1, final_learning_rate=0.1, weight_decay=0.0, grad_clip=0.0)


class TwoNumbers(nn.Module):
    """The model w = (1, 2), and 5 that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.fixed = nn.Parameter(torch.tensor([5.0]), requires_grad=False)


def pull(model: TwoNumbers, *gradient: float) -> None:
    model.w.grad = torch.tensor(gradient)


def test_first_step_is_the_rate_against_the_gradient() -> None:
    model = TwoNumbers()
    optimizer = LocalOptimizer(model, SETTINGS)

    pull(model, 3.0, -4.0)
    optimizer.step(0.01)

    assert model.w.tolist() == pytest.approx([1 - 0.01, 2 + 0.01])
    assert model.w.grad is None and model.fixed.item() == 5.0


def test_moments_are_their_formula() -> None:
    """With decays 0.9 and 0.95: a tenth of the gradient, a twentieth of its square."""
    model = TwoNumbers()
    optimizer = LocalOptimizer(model, SETTINGS)

    pull(model, 3.0, -4.0)
    optimizer.step(0.01)

    moments = optimizer.moments()
    assert set(moments) == {"exp_avg/w", "exp_avg_sq/w", "step"} and moments["step"].item() == 1
    assert moments["exp_avg/w"].tolist() == pytest.approx([0.3, -0.4])
    assert moments["exp_avg_sq/w"].tolist() == pytest.approx([9 / 20, 16 / 20])


def test_moments_carry_on_as_if_nothing_had_happened() -> None:
    steps = [(3.0, -4.0), (1.0, 1.0), (-2.0, 0.5)]
    whole, first, second = TwoNumbers(), TwoNumbers(), TwoNumbers()
    optimizer = LocalOptimizer(whole, SETTINGS)
    for gradient in steps:
        pull(whole, *gradient)
        optimizer.step(0.01)

    optimizer = LocalOptimizer(first, SETTINGS)
    for gradient in steps[:2]:
        pull(first, *gradient)
        optimizer.step(0.01)
    kept = optimizer.moments()
    copies = {name: tensor.clone() for name, tensor in kept.items()}
    second.load_state_dict(first.state_dict())
    optimizer = LocalOptimizer(second, SETTINGS, kept)
    pull(second, *steps[2])
    optimizer.step(0.01)

    assert torch.equal(second.w, whole.w)
    assert all(torch.equal(kept[name], copies[name]) for name in kept), "the given moments stay as they were"
    assert optimizer.moments()["step"].item() == 3


def test_parameter_without_gradient_has_moments_of_zero() -> None:
    model = TwoNumbers()

    moments = LocalOptimizer(model, SETTINGS).moments()

    assert moments["exp_avg/w"].tolist() == [0.0, 0.0] and moments["step"].item() == 0
    LocalOptimizer(model, SETTINGS, moments)


@pytest.mark.parametrize(("limit", "expected"), [(2.5, [1.5, -2.0]), (10.0, [3.0, -4.0]), (0.0, [3.0, -4.0])])
def test_gradients_are_clipped_to_the_limit(limit: float, expected: list[float]) -> None:
    """The gradient (3, -4) has norm 5; a tenth of what remains of it is the first moment."""
    model = TwoNumbers()
    optimizer = LocalOptimizer(model, SETTINGS.model_copy(update={"grad_clip": limit}))

    pull(model, 3.0, -4.0)
    optimizer.step(0.01)

    assert (optimizer.moments()["exp_avg/w"] * 10).tolist() == pytest.approx(expected, rel=1e-5)


def test_gradient_that_is_not_finite_spoils_all_as_it_should() -> None:
    model = TwoNumbers()
    optimizer = LocalOptimizer(model, SETTINGS.model_copy(update={"grad_clip": 1.0}))

    pull(model, math.nan, 1.0)
    optimizer.step(0.01)

    assert all(math.isnan(value) for value in model.w.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exp_avg/w": None}, "'exp_avg/w' is missing"),
        ({"exp_avg/fixed": torch.zeros(1)}, "'exp_avg/fixed' is not one"),
        ({"exp_avg/w": torch.zeros(3)}, r"'exp_avg/w' has shape \(3,\)"),
        ({"exp_avg/w": torch.zeros(2, dtype=torch.float64)}, "'exp_avg/w' is torch.float64"),
        ({"exp_avg/w": torch.tensor([0.0, math.nan])}, "'exp_avg/w' has 1 non-finite"),
        ({"exp_avg_sq/w": torch.tensor([0.0, -1.0])}, "'exp_avg_sq/w' has 1 negative"),
        ({"step": None}, "'step' is missing"),
        ({"step": torch.tensor(-1.0)}, "'step' has 1 negative"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_moments_that_do_not_fit_are_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    model = TwoNumbers()
    moments: dict[str, torch.Tensor | None] = {**LocalOptimizer(model, SETTINGS).moments(), **change}
    given: Tensors = {name: tensor for name, tensor in moments.items() if tensor is not None}

    with pytest.raises(TensorMismatch, match=message):
        LocalOptimizer(model, SETTINGS, given)


def test_proximal_gradient_is_its_formula() -> None:
    """Of mu / 2 |w - w_global|^2 with w - w_global = (1, -2): mu times that."""
    model = TwoNumbers()
    proximal = Proximal(model, {"w": torch.tensor([0.0, 4.0])}, mu=0.1)

    pull(model, 3.0, -4.0)
    proximal.add_gradient()

    assert model.w.grad is not None and model.w.grad.tolist() == pytest.approx([3.1, -4.2])
    assert model.fixed.grad is None


def test_proximal_gradient_alone() -> None:
    model = TwoNumbers()

    Proximal(model, {"w": torch.tensor([0.0, 4.0])}, mu=0.1).add_gradient()

    assert model.w.grad is not None and model.w.grad.tolist() == pytest.approx([0.1, -0.2])
