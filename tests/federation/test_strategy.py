"""From params to an aggregator and an optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from zk0.errors import StageError
from zk0.federation.aggregation import StreamingMean
from zk0.federation.robust import Krum, Median, TrimmedMean
from zk0.federation.server_optimizer import FedAdam, FedAvg, FedAvgM, FedYogi
from zk0.federation.strategy import STRATEGIES, check_enough, cost, make_aggregator, make_optimizer, server_rate
from zk0.params import FederationParams, Strategy

START = {"w": torch.tensor([1.0, 10.0])}


def federation(strategy: str, **more: Any) -> FederationParams:
    return FederationParams.model_validate({"strategy": strategy} | more)


def test_every_strategy_of_params_is_there() -> None:
    assert set(STRATEGIES) == set(get_args(Strategy))


@pytest.mark.parametrize(
    ("strategy", "aggregator", "optimizer"),
    [
        ("fedavg", StreamingMean, FedAvg(0.5)),
        ("fedprox", StreamingMean, FedAvg(0.5)),
        ("fedavgm", StreamingMean, FedAvgM(0.5, 0.8)),
        ("fedadam", StreamingMean, FedAdam(0.5, 0.8, 0.7, 0.01)),
        ("fedyogi", StreamingMean, FedYogi(0.5, 0.8, 0.7, 0.01)),
        ("fedmedian", Median, FedAvg(0.5)),
        ("trimmed-mean", TrimmedMean, FedAvg(0.5)),
        ("krum", Krum, FedAvg(0.5)),
    ],
)
def test_params_reach_aggregator_and_optimiser(
    tmp_path: Path, strategy: str, aggregator: type, optimizer: object
) -> None:
    params = federation(
        strategy, server_learning_rate=0.5, server_momentum=0.8, server_beta2=0.7, server_tau=0.01, byzantine=1
    )

    with make_aggregator(params, START, tmp_path) as made:
        assert type(made) is aggregator
        for _ in range(5):
            made.fold({"w": torch.tensor([1.0, 2.0])}, weight=2.0)
        tensors, _ = make_optimizer(params).step({}, START, made.finish())

    assert make_optimizer(params) == optimizer
    assert tensors["w"].shape == (2,) and not torch.equal(tensors["w"], START["w"])


@pytest.mark.parametrize(("strategy", "own"), [("fedavg", 1.0), ("fedavgm", 1.0), ("fedadam", 0.01), ("krum", 1.0)])
def test_rate_is_the_rounds_the_params_or_the_strategys_own(strategy: str, own: float) -> None:
    def rate(params: FederationParams, *given: float) -> float:
        return make_optimizer(params, *given).rate  # type: ignore[attr-defined, no-any-return]

    assert server_rate(federation(strategy)) == rate(federation(strategy)) == own
    said = federation(strategy, server_learning_rate=0.3)
    assert server_rate(said) == rate(said) == 0.3
    assert rate(said, 0.05) == 0.05


def test_share_and_number_of_liars_reach_the_robust_ones(tmp_path: Path) -> None:
    values = [0.0, 0.0, 1.0, 2.0, 30.0]
    for share, mean in ((0.2, 1.0), (0.4, 1.0), (0.0, 6.6)):
        with make_aggregator(federation("trimmed-mean", trimmed_share=share), {"w": torch.zeros(1)}, tmp_path) as made:
            for value in values:
                made.fold({"w": torch.tensor([value])}, weight=1)
            assert made.finish()["w"].item() == pytest.approx(mean)
    with make_aggregator(federation("krum", byzantine=2), START, tmp_path) as made:
        made.fold({"w": torch.zeros(2)}, weight=1)
        with pytest.raises(StageError, match=r"needs 7, since to bear federation\.byzantine 2"):
            made.finish()


@pytest.mark.parametrize(
    ("strategy", "more", "needed"),
    [
        ("fedavg", {}, 1),
        ("fedyogi", {}, 1),
        ("fedmedian", {}, 3),
        ("trimmed-mean", {"trimmed_share": 0.2}, 5),
        ("trimmed-mean", {"trimmed_share": 0.3}, 4),
        ("trimmed-mean", {"trimmed_share": 0.0}, 1),
        ("krum", {"byzantine": 0}, 3),
        ("krum", {"byzantine": 2}, 7),
    ],
)
def test_too_few_sites_are_told_before_they_train(strategy: str, more: dict[str, Any], needed: int) -> None:
    params = federation(strategy, **more)
    check_enough(params, needed)

    with pytest.raises(
        StageError, match=rf"federation.strategy {strategy} needs {needed} sites.*there are {needed - 1}"
    ):
        check_enough(params, needed - 1)


def test_fraction_is_named_where_it_draws_too_few() -> None:
    message = r"needs 3 sites, since .*; federation\.fraction 0\.5 draws 2 a round\. Add sites, draw more, or use"

    with pytest.raises(StageError, match=message):
        check_enough(federation("fedmedian", fraction=0.5), 2)


def test_cost_is_told() -> None:
    assert cost(federation("fedadam"), 4, 400_000_000) == (
        "fedadam streams: 400 MB of memory for any number of sites, nothing on disk"
    )
    assert cost(federation("krum"), 64, 400_000_000).startswith("krum needs all updates at once: 64 x 400 MB wait on d")
