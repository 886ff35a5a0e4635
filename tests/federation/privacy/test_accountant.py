"""Spending is what published figures say, is written before it is released, and is never forgotten."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from scipy.stats import norm

from zk0.errors import StageError
from zk0.federation.privacy.accountant import (
    EVALUATION,
    TRAINING,
    BudgetSpent,
    Charge,
    Ledger,
    affordable_rounds,
    epsilon_of,
    joint_multiplier,
    planned_epsilon,
    round_charges,
)
from zk0.files import read_json
from zk0.params import PrivacyParams

DELTA = 1e-5
CENTRAL = PrivacyParams(mode="central", noise_multiplier=2.0, report_noise_multiplier=10.0, target_epsilon=8.0)


def charges(multiplier: float, count: int, sampling: float = 1.0) -> list[Charge]:
    return [Charge(number, TRAINING, multiplier, sampling) for number in range(count)]


def gaussian_delta(multiplier: float, epsilon: float) -> float:
    """Exact, of one Gaussian release: Balle and Wang, ICML 2018, theorem 8."""
    half, shift = 1 / (2 * multiplier), epsilon * multiplier
    return float(norm.cdf(half - shift) - math.exp(epsilon) * norm.cdf(-half - shift))


def test_sampled_releases_cost_what_opacus_says() -> None:
    """Opacus, tests/accountants_test.py: RDP gives 7.32911117143; its numerical accountant, the truth, 6.7774."""
    found = epsilon_of(charges(1.5, 2250, sampling=0.04), DELTA)

    assert found == pytest.approx(7.32911117143, rel=2e-3)
    assert found > 6.777395712150674


def test_sampled_releases_cost_what_the_moments_accountant_found() -> None:
    """Abadi et al., CCS 2016: q = 0.01, sigma = 4, 10,000 steps give (1.26, 1e-5); later proofs give less."""
    assert 0.9 < epsilon_of(charges(4.0, 10_000, sampling=0.01), DELTA) < 1.26


@pytest.mark.parametrize(("multiplier", "count", "sampling"), [(4.0, 10_000, 0.01), (1.0, 20, 0.1), (0.8, 3, 0.5)])
def test_sampled_releases_never_cost_less_than_the_whole_distribution_says(
    multiplier: float, count: int, sampling: float
) -> None:
    """The privacy loss distribution is composed numerically, without Renyi's detour: Koskela et al., AISTATS 2020."""
    exact = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL)
    exact.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(multiplier)), count)

    found = epsilon_of(charges(multiplier, count, sampling), DELTA)

    assert exact.get_epsilon(DELTA) <= found < 1.25 * exact.get_epsilon(DELTA)


@pytest.mark.parametrize(("multiplier", "count"), [(0.5, 1), (1.0, 1), (1.0, 10), (5.0, 100), (30.0, 50)])
def test_plain_releases_cost_between_the_exact_figure_and_the_oldest_bound(multiplier: float, count: int) -> None:
    found = epsilon_of(charges(multiplier, count), DELTA)

    # Releases with noise z, T times, are one with noise z / sqrt(T).
    assert gaussian_delta(multiplier / math.sqrt(count), found) <= DELTA
    rho = count / (2 * multiplier**2)  # Bun and Steinke, TCC 2016
    assert found <= rho + 2 * math.sqrt(rho * math.log(1 / DELTA))


def test_releases_made_together_cost_what_they_cost_one_by_one() -> None:
    together = epsilon_of([Charge(1, TRAINING, joint_multiplier(2.0, 10.0, 10.0))], DELTA)
    apart = epsilon_of([Charge(1, TRAINING, z) for z in (2.0, 10.0, 10.0)], DELTA)

    assert together == pytest.approx(apart, rel=1e-9)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon_of([], DELTA) == 0.0


def test_round_0_only_evaluates() -> None:
    assert [charge.what for charge in round_charges(CENTRAL, 0)] == [EVALUATION]
    assert [charge.what for charge in round_charges(CENTRAL, 3)] == [TRAINING, EVALUATION]
    adaptive = CENTRAL.model_copy(update={"clip": "adaptive"})
    assert round_charges(adaptive, 1)[0].noise_multiplier < round_charges(CENTRAL, 1)[0].noise_multiplier < 2.0


def test_affordable_rounds_are_the_most_that_fit() -> None:
    most = affordable_rounds(CENTRAL, 1000)

    assert 1 < most < 1000
    assert planned_epsilon(CENTRAL, most) <= 8.0 < planned_epsilon(CENTRAL, most + 1)
    assert affordable_rounds(CENTRAL, 2) == 2
    assert affordable_rounds(CENTRAL.model_copy(update={"target_epsilon": 1e-3}), 5) == -1


def test_charge_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json", CENTRAL)
    ledger.charge(Charge(1, TRAINING, 2.0))

    assert read_json(tmp_path / "privacy.json")["charges"] == [
        {"round": 1, "what": "training", "noise_multiplier": 2.0, "sampling": 1.0}
    ]
    again = Ledger(tmp_path / "privacy.json", CENTRAL)
    assert again.charges == ledger.charges and again.epsilon == ledger.epsilon > 0


def test_charge_beyond_the_budget_is_refused_and_not_noted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy.json", CENTRAL.model_copy(update={"target_epsilon": 3.0}))
    ledger.charge(Charge(1, TRAINING, 2.0))
    before = ledger.epsilon

    with pytest.raises(BudgetSpent, match=r"the training of round 2 would exceed privacy\.target_epsilon 3"):
        ledger.charge(Charge(2, TRAINING, 1.0))

    assert ledger.epsilon == before and len(Ledger(tmp_path / "privacy.json", CENTRAL).charges) == 1


def test_lost_file_does_not_forget_what_the_state_knows(tmp_path: Path) -> None:
    first, second = Charge(1, TRAINING, 2.0), Charge(1, EVALUATION, 10.0)
    ledger = Ledger(tmp_path / "privacy.json", CENTRAL)

    ledger.resume([first])
    ledger.charge(second)

    assert Ledger(tmp_path / "privacy.json", CENTRAL).charges == [first, second]


def test_file_remembers_more_than_the_state(tmp_path: Path) -> None:
    """A round that was killed after it was charged for, and before it was saved."""
    ledger = Ledger(tmp_path / "privacy.json", CENTRAL)
    for number in (1, 2):
        ledger.charge(Charge(number, TRAINING, 4.0))

    again = Ledger(tmp_path / "privacy.json", CENTRAL)
    again.resume([Charge(1, TRAINING, 4.0)])

    assert len(again.charges) == 2


def test_another_runs_file_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "privacy.json", CENTRAL).charge(Charge(1, TRAINING, 2.0))

    with pytest.raises(StageError, match="one of them is another run's"):
        Ledger(tmp_path / "privacy.json", CENTRAL).resume([Charge(1, TRAINING, 3.0)])


@pytest.mark.parametrize("content", ["{", '{"charges": [{"round": 1}]}', '{"spent": 3}', "[]"])
def test_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "privacy.json").write_text(content)

    with pytest.raises(StageError, match=r"privacy\.json, which holds what was spent .* is damaged"):
        Ledger(tmp_path / "privacy.json", CENTRAL)
