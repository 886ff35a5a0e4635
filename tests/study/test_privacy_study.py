"""The study's arms are possible, differ in privacy alone, and spend what their names say."""

from __future__ import annotations

import pytest

from zk0.errors import StageError
from zk0.federation.privacy.accountant import affordable_rounds, calibrated_noise, planned_epsilon
from zk0.params import Params, PrivacyParams, parse_params, with_changes
from zk0.study.arms import EPSILONS, Arm
from zk0.study.studies import study_named


@pytest.fixture
def params() -> Params:
    sites = {"a": "sim:push-red-cube-left", "b": "sim:pull-blue-bar"}
    return parse_params({"policy": {"base": "random:nano"}, "data": {"sites": sites}})


def named(arms: tuple[Arm, ...], name: str) -> Arm:
    return next(arm for arm in arms if arm.name == name)


@pytest.mark.parametrize("name", ["privacy", "privacy-many"])
def test_budgets_last_exactly_to_the_last_round(params: Params, name: str) -> None:
    study = study_named(name, params)
    shared = study.params

    for epsilon in EPSILONS:
        arm = named(study.arms, f"epsilon {epsilon:g}").params(shared)
        spent = planned_epsilon(arm.privacy, arm.federation.rounds)
        assert 0.99 * epsilon < spent <= epsilon == arm.privacy.target_epsilon
        assert arm.model_copy(update={"privacy": PrivacyParams()}) == shared
    site = named(study.arms, "epsilon 8 at each site").params(shared)
    assert site.privacy.mode == "site" and planned_epsilon(site.privacy, site.federation.rounds) <= 8.0
    assert named(study.arms, "no privacy").params(shared) == shared
    clipped = named(study.arms, "clipped only").params(shared)
    assert affordable_rounds(clipped.privacy, clipped.federation.rounds) == clipped.federation.rounds


def test_many_sites_train_few_values(params: Params) -> None:
    shared = study_named("privacy-many", with_changes(params, {"data.episodes": 120})).params

    assert shared.data.partition.sites == 200 and shared.data.episodes == 600 and shared.policy.lora_rank == 4
    assert list(shared.data.sites) == ["a"]


def test_noise_is_the_least_that_affords_the_rounds() -> None:
    settings = PrivacyParams(mode="central", target_epsilon=8.0, report_noise_multiplier=20.0)

    noise = calibrated_noise(settings, 10)

    enough = settings.model_copy(update={"noise_multiplier": noise})
    less = settings.model_copy(update={"noise_multiplier": noise * 0.99})
    assert affordable_rounds(enough, 10) == 10 and affordable_rounds(less, 10) == 9


def test_budget_that_the_losses_alone_exceed_is_refused() -> None:
    settings = PrivacyParams(mode="central", target_epsilon=0.5, report_noise_multiplier=1.0)

    with pytest.raises(StageError, match="what 10 rounds tell besides the model costs epsilon"):
        calibrated_noise(settings, 10)
