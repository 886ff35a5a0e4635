"""What changes from round to round: by hand, by the trend, and the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from zk0.federation.plan import proximal_mu, server_share, stop_reason
from zk0.params import FederationParams
from zk0.records.run import Round


def federation(**more: Any) -> FederationParams:
    return FederationParams.model_validate(more)


def rows(*losses: float) -> list[Round]:
    """Round 0, whose loss is lower than any other, and the rounds with these losses."""
    return [Round(round=number, held_out_loss=loss) for number, loss in enumerate((0.001, *losses))]


def shares(params: FederationParams, *losses: float) -> list[float]:
    """The server's share in round 1 and after each of these losses."""
    return [server_share(params, n + 1, rows(*losses[:n])) for n in range(len(losses) + 1)]


def mus(params: FederationParams, *losses: float) -> list[float]:
    return [proximal_mu(params, n + 1, rows(*losses[:n])) for n in range(len(losses) + 1)]


# -- the server's learning rate -----------------------------------------------------------------


def test_constant_is_constant() -> None:
    assert shares(federation(), 5.0, 4.0, 6.0, 7.0) == [1.0] * 5


def test_cosine_goes_from_all_to_the_least_share() -> None:
    params = federation(server_schedule="cosine", server_least_share=0.2, rounds=5)

    found = [server_share(params, number, rows()) for number in range(1, 8)]

    half = 0.5 * math.sqrt(0.5)
    assert found == pytest.approx([1.0, 0.2 + 0.8 * (0.5 + half), 0.6, 0.2 + 0.8 * (0.5 - half), 0.2, 0.2, 0.2])


def test_cosine_is_torchs() -> None:
    params = federation(server_schedule="cosine", server_least_share=0.1, rounds=9)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.1)
    expected = []
    for _ in range(9):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()

    assert [server_share(params, number, rows()) for number in range(1, 10)] == pytest.approx(expected)


def test_run_of_one_round_has_the_whole_rate() -> None:
    params = federation(strategy="fedprox", proximal_mu=2.0, proximal_schedule="linear", server_schedule="cosine")
    one = params.model_copy(update={"rounds": 1})

    assert server_share(one, 1, rows()) == 1.0 and proximal_mu(one, 1, rows()) == 2.0


def test_plateau_halves_after_two_rounds_without_a_better_loss() -> None:
    params = federation(server_schedule="plateau", schedule_patience=2, schedule_factor=0.5, server_least_share=0.2)

    found = shares(params, 5.0, 6.0, 5.0, 4.0, 4.5, 4.1, 4.1, 4.1, 4.0, 3.0, 9.0, 9.0)

    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_plateau_is_torchs() -> None:
    """Torch counts the bad rounds beyond its patience, we those at which patience is over."""
    params = federation(server_schedule="plateau", schedule_patience=3, schedule_factor=0.3, server_least_share=0.01)
    losses = torch.rand(60, generator=torch.Generator().manual_seed(3)).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=2, threshold=0.0, threshold_mode="abs", min_lr=0.01, eps=0.0
    )
    expected = [1.0]
    for loss in losses:
        schedule.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])

    assert shares(params, *losses) == pytest.approx(expected)
    assert len(set(expected)) > 3


# -- the proximal weight ------------------------------------------------------------------------


def fedprox(schedule: str, **more: Any) -> FederationParams:
    return federation(strategy="fedprox", proximal_mu=0.8, proximal_schedule=schedule, **more)


def test_weight_is_constant_unless_said() -> None:
    assert mus(fedprox("constant"), 5.0, 6.0) == [0.8] * 3
    assert proximal_mu(federation(), 1, rows()) == 0.0


def test_linear_weight_goes_down_to_its_least_share() -> None:
    params = fedprox("linear", proximal_least_share=0.5, rounds=5)

    assert [proximal_mu(params, n, rows()) for n in range(1, 6)] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4])


def test_linear_weight_may_end_at_none() -> None:
    assert proximal_mu(fedprox("linear", proximal_least_share=0.0, rounds=4), 4, rows()) == pytest.approx(0.0)


def test_weight_rises_with_the_loss_and_falls_after_patience() -> None:
    params = fedprox("trend", schedule_patience=2, schedule_factor=0.5, proximal_least_share=0.25)

    found = mus(params, 5.0, 6.0, 5.0, 4.0, 3.0, 3.0, 2.0, 1.0)

    #                           rise      2 falls             equal: neither     2 falls
    assert found == pytest.approx([0.8, 0.8, 1.6, 1.6, 0.8, 0.8, 0.8, 0.8, 0.4])


def test_weight_stays_between_its_least_share_and_the_inverse() -> None:
    params = fedprox("trend", schedule_patience=1, schedule_factor=0.5, proximal_least_share=0.3)

    assert mus(params, 1.0, 2.0, 3.0, 4.0)[-1] == pytest.approx(0.8 / 0.3)
    assert mus(params, 9.0, 8.0, 7.0, 6.0)[-1] == pytest.approx(0.8 * 0.3)


# -- the end ------------------------------------------------------------------------------------


def stops_after(params: FederationParams, *losses: float) -> int | None:
    """The first round after which the run ends."""
    return next((n for n in range(len(losses) + 1) if stop_reason(params, rows(*losses[:n]))), None)


def test_no_end_unless_asked_for() -> None:
    assert stop_reason(federation(), rows(*[1.0] * 5)) is None


def test_end_after_rounds_without_a_better_one() -> None:
    params = federation(stop_after=2, rounds=20)

    assert stops_after(params, 5.0, 4.0, 4.5, 3.9, 4.0, 3.9, 3.0) == 6
    assert stops_after(params, 5.0, 4.0, 3.0, 2.0) is None
    assert stop_reason(params, rows(5.0, 4.0, 4.5, 3.9, 4.0, 3.9)) == (
        "no round since round 4 was better than its held-out loss of 3.9000, and federation.stop_after is 2"
    )


def test_start_is_no_round_to_be_better_than() -> None:
    """Its loss is the lowest of all here; a run that comes down towards it goes on."""
    assert stops_after(federation(stop_after=2, rounds=20), 9.0, 8.0, 7.0, 6.0) is None


def test_margin_asks_for_more() -> None:
    """Steps of 2% do not count one by one, but do once they have added up to 5%."""
    losses = [0.98**n for n in range(9)]

    assert stops_after(federation(stop_after=2, stop_margin=0.05, rounds=20), *losses) == 3
    assert stops_after(federation(stop_after=3, stop_margin=0.05, rounds=20), *losses) is None
    reason = stop_reason(federation(stop_after=2, stop_margin=0.05, rounds=20), rows(*losses[:3]))
    assert reason is not None and reason.startswith("no round since round 1 was better by 0.05 of it than its held-out")


def test_last_round_is_no_early_end() -> None:
    assert stop_reason(federation(stop_after=2, rounds=3), rows(1.0, 2.0, 3.0)) is None
    assert stop_reason(federation(stop_after=2, rounds=4), rows(1.0, 2.0, 3.0)) is not None


def test_run_that_only_has_its_start_goes_on() -> None:
    assert stop_reason(federation(stop_after=1), rows()) is None
