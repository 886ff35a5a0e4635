"""Server optimisers against a reader's arithmetic and, over rounds, against Flower's own."""

from __future__ import annotations

import math

import flwr.serverapp.strategy as flower
import pytest
import torch
from flower_oracle import aggregate, arrays_of

from zk0.federation.aggregation import StreamingMean
from zk0.federation.server_optimizer import FedAdam, FedAvg, FedAvgM, FedYogi, ServerOptimizer
from zk0.policy.trainable import PIECE, TensorMismatch, Tensors

TAU = 0.1
ALL = [FedAvg(0.5), FedAvgM(0.7, 0.9), FedAdam(0.3, 0.9, 0.99, TAU), FedYogi(0.3, 0.9, 0.99, TAU)]
each = pytest.mark.parametrize("optimizer", ALL, ids=[type(optimizer).__name__ for optimizer in ALL])


def one(*values: float) -> Tensors:
    return {"w": torch.tensor(values)}


def random_tensors(seed: int) -> Tensors:
    rng = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(3, 2, generator=rng), "b": torch.randn((), generator=rng)}


def alike(ours: Tensors, other: Tensors) -> None:
    assert ours.keys() == other.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, other[name].to(torch.float32), rtol=2e-5, atol=2e-6)


# -- arithmetic ---------------------------------------------------------------------------------


def test_fedavg_at_rate_one_is_exactly_the_sum() -> None:
    start, update = random_tensors(1), random_tensors(2)
    expected = {name: start[name] + update[name] for name in start}

    tensors, state = FedAvg().step({}, start, update)

    assert all(torch.equal(tensors[name], expected[name]) for name in start)
    assert state == {}


def test_fedavg_scales_the_update() -> None:
    assert FedAvg(0.5).step({}, one(1.0), one(4.0))[0]["w"].item() == 3.0


def test_fedavgm_adds_up_updates() -> None:
    optimizer = FedAvgM(rate=2.0, momentum=0.5)

    first, state = optimizer.step({}, one(1.0), one(4.0))
    second, after = optimizer.step(state, first, one(1.0))

    assert first["w"].item() == 1 + 2 * 4
    assert after["momentum/w"].item() == 0.5 * 4 + 1
    assert second["w"].item() == 9 + 2 * 3


def test_fedadam_by_hand() -> None:
    """Momentum 0.5 * 0 + 0.5 * 2 = 1; second moment 0.75 * 0.25 + 0.25 * 4 = 1.1875."""
    tensors, state = FedAdam(rate=3.0, momentum=0.5, beta2=0.75, tau=0.5).step({}, one(1.0), one(2.0))

    assert state["momentum/w"].item() == 1.0
    assert state["second/w"].item() == 1.1875
    assert tensors["w"].item() == pytest.approx(1 + 3 * 1 / (math.sqrt(1.1875) + 0.5))


def test_fedyogi_by_hand() -> None:
    """A larger square raises the second moment by a share of it, a smaller one lowers it, an equal one leaves it."""
    optimizer = FedYogi(rate=3.0, momentum=0.5, beta2=0.75, tau=0.5)

    tensors, state = optimizer.step({}, one(1.0, 1.0, 1.0), one(2.0, 0.25, 0.5))

    assert state["second/w"].tolist() == [0.25 + 0.25 * 4, 0.25 - 0.25 * 0.0625, 0.25]
    assert tensors["w"][0].item() == pytest.approx(1 + 3 * 1 / (math.sqrt(1.25) + 0.5))


# -- beside Flower ------------------------------------------------------------------------------


def rounds(optimizer: ServerOptimizer, strategy: flower.FedAvg, prepare) -> None:  # type: ignore[no-untyped-def]
    """Four rounds of three sites in both; ``prepare`` is told the round and the tensors before each."""
    weights = [480.0, 16.0, 100.0]
    tensors = random_tensors(0)
    state: Tensors = {}
    for number in range(1, 5):
        prepare(number, tensors)
        deltas = [{n: t * 0.3 for n, t in random_tensors(10 * number + site).items()} for site in range(3)]
        other = aggregate(strategy, number, tensors, deltas, weights)
        with StreamingMean(tensors) as mean:
            for delta, weight in zip(deltas, weights, strict=True):
                mean.fold(delta, weight)
            tensors, state = optimizer.step(state, tensors, mean.finish())
        alike(tensors, other)


def test_fedavg_is_flowers() -> None:
    rounds(FedAvg(), flower.FedAvg(), lambda number, tensors: None)


@pytest.mark.parametrize(("rate", "momentum"), [(1.0, 0.9), (0.5, 0.5), (0.3, 0.0)])
def test_fedavgm_is_flowers(rate: float, momentum: float) -> None:
    strategy = flower.FedAvgM(server_learning_rate=rate, server_momentum=momentum)

    def prepare(number: int, tensors: Tensors) -> None:
        if number == 1:
            strategy.current_arrays = arrays_of(tensors)

    rounds(FedAvgM(rate, momentum), strategy, prepare)


def test_fedadam_is_flowers_but_for_the_stated_differences() -> None:
    """Given the paper's first second moment and without its correction of the rate, Flower does the same."""
    rate, beta1, beta2 = 0.3, 0.9, 0.99
    strategy = flower.FedAdam(beta_1=beta1, beta_2=beta2, tau=TAU)

    def prepare(number: int, tensors: Tensors) -> None:
        strategy.current_arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        strategy.eta = rate * (1 - beta1 ** (number + 1)) / math.sqrt(1 - beta2 ** (number + 1))
        if number == 1:
            strategy.v_t = {name: torch.full_like(tensor, TAU**2).numpy() for name, tensor in tensors.items()}

    rounds(FedAdam(rate, beta1, beta2, TAU), strategy, prepare)


def test_fedyogi_is_flowers_but_for_the_stated_difference() -> None:
    strategy = flower.FedYogi(eta=0.3, beta_1=0.9, beta_2=0.99, tau=TAU)

    def prepare(number: int, tensors: Tensors) -> None:
        strategy.current_arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        if number == 1:
            strategy.v_t = {name: torch.full_like(tensor, TAU**2).numpy() for name, tensor in tensors.items()}

    rounds(FedYogi(0.3, 0.9, 0.99, TAU), strategy, prepare)


# -- purity -------------------------------------------------------------------------------------


@each
def test_old_tensors_and_state_stay_and_a_step_can_be_repeated(optimizer: ServerOptimizer) -> None:
    start = random_tensors(1)
    tensors, state = optimizer.step({}, start, random_tensors(2))
    before = {n: t.clone() for n, t in (start | tensors | state).items()}

    first = optimizer.step(state, tensors, random_tensors(3))
    again = optimizer.step(state, tensors, random_tensors(3))

    assert all(torch.equal(before[name], tensor) for name, tensor in (start | tensors | state).items())
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a)


@each
def test_state_in_the_old_ones_memory_is_the_same(optimizer: ServerOptimizer) -> None:
    tensors, state = optimizer.step({}, random_tensors(1), random_tensors(2))
    expected = optimizer.step(state, tensors, random_tensors(3))

    found = optimizer.step(state, tensors, random_tensors(3), reuse_state=True)

    assert all(torch.equal(a[name], b[name]) for a, b in zip(expected, found, strict=True) for name in a)
    assert all(found[1][name] is state[name] for name in state)


@each
def test_result_takes_the_updates_memory(optimizer: ServerOptimizer) -> None:
    update = random_tensors(2)

    tensors, _ = optimizer.step({}, random_tensors(1), update)

    assert all(tensors[name].data_ptr() == update[name].data_ptr() for name in update)


@each
def test_large_tensors_are_worked_on_in_pieces(optimizer: ServerOptimizer) -> None:
    """Beyond one piece values do as their equals in the first."""
    long, short = 2 * PIECE + 3, 4
    pattern = torch.tensor([0.5, -1.0, 0.25, 2.0])
    repeated = pattern.repeat(-(-long // 4))[:long]
    results = []
    for values, length in ((repeated, long), (pattern, short)):
        tensors, state = optimizer.step({}, {"w": torch.ones(length)}, {"w": values.clone()})
        results.append(optimizer.step(state, tensors, {"w": -2 * values})[0]["w"])

    assert torch.equal(results[0], results[1].repeat(-(-long // 4))[:long])


@each
def test_half_precision_models_keep_their_dtype(optimizer: ServerOptimizer) -> None:
    start = {"w": torch.tensor([1.0, -2.0], dtype=torch.float16)}
    expected, _ = optimizer.step({}, {"w": start["w"].float()}, one(0.5, 0.25))

    tensors, state = optimizer.step({}, start, one(0.5, 0.25))

    assert torch.equal(tensors["w"], expected["w"].half())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"momentum/w": torch.zeros(2)}, "'second/w' is missing"),
        ({"momentum/w": torch.zeros(2), "second/w": torch.zeros(2), "third/w": torch.zeros(2)}, "'third/w' is unknown"),
        ({"momentum/w": torch.zeros(3), "second/w": torch.zeros(2)}, r"'momentum/w' is torch.float32 of shape \(3,\)"),
        ({"momentum/w": torch.zeros(2), "second/w": torch.zeros(2).half()}, "'second/w' is torch.float16"),
    ],
)
def test_state_of_another_optimiser(state: Tensors, said: str) -> None:
    with pytest.raises(TensorMismatch, match=said):
        FedAdam(1.0, 0.9, 0.99, TAU).step(state, one(1.0, 2.0), one(1.0, 2.0))


def test_fedavg_refuses_a_state() -> None:
    with pytest.raises(TensorMismatch, match="'momentum/w' is unknown"):
        FedAvg().step({"momentum/w": torch.zeros(1)}, one(1.0), one(1.0))
