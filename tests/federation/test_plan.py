"""What a round is to be, and who is drawn for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zk0.federation.plan import draw_sites, judges, plan_round, sites_drawn
from zk0.params import Params, parse_params
from zk0.records.run import Round


def params(seed: int = 1, **federation: Any) -> Params:
    return parse_params(
        {
            "seed": seed,
            "policy": {"base": "random:nano"},
            "data": {"sites": {"a": "sim:push-red-cube-left"}},
            "federation": federation,
        }
    )


def rows(*losses: float) -> list[Round]:
    return [Round(round=number, held_out_loss=loss) for number, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("sites", "fraction", "drawn"),
    [(4, 1.0, 4), (4, 0.5, 2), (4, 0.51, 3), (4, 0.01, 1), (1, 0.3, 1), (10, 0.3, 3), (200, 0.1, 20), (3, 1 / 3, 1)],
)
def test_fraction_is_rounded_up_and_never_none(sites: int, fraction: float, drawn: int) -> None:
    assert sites_drawn(sites, fraction) == drawn
    assert len(draw_sites(1, 1, sites, fraction)) == drawn


def test_who_fares_worse_has_the_larger_say_within_bounds() -> None:
    losses = {"a": 0.5, "b": 0.4, "c": 0.6, "d": 1e9, "e": 0.0}
    sites = {name: {"held_out_loss": loss} for name, loss in losses.items()} | {"f": {"examples": 3}}
    told = [Round.model_validate({"round": 3, "held_out_loss": 1.0, "sites": sites})]

    assert plan_round(params(weighting="loss"), told, [0]).says == {"a": 1.0, "b": 0.8, "c": 1.2, "d": 2.0, "e": 0.5}
    assert plan_round(params(weighting="examples"), told, [0]).says == {}


def test_judges_belong_to_the_run() -> None:
    partitions = list(range(0, 200, 2))
    chosen = judges(params(judges=0.1), partitions)

    assert len(chosen) == 10 and sorted(set(chosen)) == list(chosen) and set(chosen) <= set(partitions)
    assert chosen == judges(params(judges=0.1, rounds=9), partitions)
    assert judges(params(), partitions) == tuple(partitions)


def test_draw_belongs_to_seed_and_round() -> None:
    draws = [draw_sites(1, number, 100, 0.1) for number in range(1, 30)]

    assert draws == [draw_sites(1, number, 100, 0.1) for number in range(1, 30)]
    assert len(set(draws)) == len(draws)
    assert draw_sites(2, 1, 100, 0.1) != draws[0]
    assert all(sorted(set(draw)) == list(draw) and 0 <= draw[0] <= draw[-1] < 100 for draw in draws)


def test_all_are_asked_where_nobody_is_drawn() -> None:
    assert draw_sites(1, 5, 4, 1.0) == (0, 1, 2, 3)


def test_every_site_is_as_likely_as_any_other_and_so_is_every_pair() -> None:
    """Over 3,000 rounds, within five standard deviations of the count."""
    rounds, sites = 3000, 6
    together = np.zeros((sites, sites))
    for number in range(rounds):
        drawn = list(draw_sites(7, number, sites, 0.5))
        together[np.ix_(drawn, drawn)] += 1

    for counts, likely in (
        (together.diagonal(), 3 / 6),
        (together[~np.eye(sites, dtype=bool)], 3 * 2 / (6 * 5)),
    ):
        deviation = np.sqrt(rounds * likely * (1 - likely))
        assert np.abs(counts - rounds * likely).max() < 5 * deviation


def test_mean_of_the_drawn_is_unbiased() -> None:
    """Five standard errors; the sites' values are far apart."""
    values = np.array([1.0, 10.0, -30.0, 4.0, 100.0])

    means = [values[list(draw_sites(3, number, 5, 0.4))].mean() for number in range(4000)]

    assert abs(np.mean(means) - values.mean()) < 5 * np.std(means) / np.sqrt(len(means))


def test_plain_plan_asks_all_at_the_params_rate() -> None:
    plan = plan_round(params(server_learning_rate=0.3), rows(1.0), range(4))

    assert (plan.round, plan.partitions, plan.server_rate, plan.proximal_mu) == (1, (0, 1, 2, 3), 0.3, 0.0)
    assert (plan.server_rate, plan.proximal_mu) == (0.3, 0.0)


@pytest.mark.parametrize(
    ("strategy", "rate"), [("fedavg", 1.0), ("fedavgm", 1.0), ("krum", 1.0), ("fedadam", 0.01), ("fedyogi", 0.01)]
)
def test_rate_is_the_strategys_own_unless_said(strategy: str, rate: float) -> None:
    assert plan_round(params(strategy=strategy), rows(1.0), range(4)).server_rate == rate
    assert plan_round(params(strategy=strategy, server_learning_rate=0.5), rows(1.0), range(4)).server_rate == 0.5


def test_schedules_scale_the_rate_and_the_weight() -> None:
    made = params(
        strategy="fedprox",
        proximal_mu=0.2,
        proximal_schedule="trend",
        server_learning_rate=0.6,
        server_schedule="plateau",
        schedule_patience=1,
    )

    plan = plan_round(made, rows(9.0, 1.0, 2.0), range(4))

    assert plan.round == 3
    assert plan.server_rate == pytest.approx(0.3) and plan.proximal_mu == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "round 2 of 6"),
        ({"fraction": 0.5}, "round 2 of 6, 2 of 4 sites train"),
        ({"server_schedule": "cosine", "rounds": 3}, "round 2 of 3, server learning rate 0.55"),
        (
            {"strategy": "fedprox", "proximal_mu": 0.1, "proximal_schedule": "linear", "rounds": 3},
            "round 2 of 3, proximal mu 0.055",
        ),
    ],
)
def test_what_changes_is_told(settings: dict[str, Any], told: str) -> None:
    made = params(**settings)

    assert plan_round(made, rows(1.0, 1.0), range(4)).told(made.federation, 4) == told
