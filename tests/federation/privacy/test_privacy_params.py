"""Settings under which the promise would not hold are refused."""

from __future__ import annotations

from typing import Any

import pytest

from zk0.federation.run import config_digest
from zk0.params import Params, ParamsError, with_changes

CENTRAL = {"privacy.mode": "central", "federation.weighting": "equal"}


def test_off_by_default_and_however_yaml_reads_it(small_params: Params) -> None:
    assert small_params.privacy.mode == "off"
    assert with_changes(small_params, {"privacy.mode": False}).privacy.mode == "off"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"privacy.mode": "central"}, "privacy.mode central needs federation.weighting equal"),
        ({"privacy.mode": "site"}, "privacy.mode site needs federation.weighting equal"),
        (CENTRAL | {"federation.strategy": "krum"}, "needs a strategy that averages, not krum"),
        (CENTRAL | {"federation.strategy": "fedmedian"}, "not fedmedian"),
        (CENTRAL | {"federation.strategy": "trimmed-mean"}, "not trimmed-mean"),
        (CENTRAL | {"privacy.mode": "site", "privacy.clip": "adaptive"}, "use clip fixed"),
        ({"privacy.mode": "local"}, "'off', 'central' or 'site'"),
        ({"privacy.noise_multiplier": 0}, "greater than 0"),
        ({"privacy.clip_norm": 0}, "greater than 0"),
        ({"privacy.delta": 1}, "less than 1"),
        ({"privacy.target_epsilon": 0}, "greater than 0"),
        ({"privacy.clip_quantile": 1}, "less than 1"),
        ({"privacy.noise": 1}, "unknown key 'privacy.noise'"),
    ],
)
def test_settings_that_promise_nothing_are_refused(small_params: Params, changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ParamsError) as refused:
        with_changes(small_params, changes)

    assert rule in str(refused.value)


def test_site_mode_goes_with_any_strategy(small_params: Params) -> None:
    changed = with_changes(small_params, CENTRAL | {"privacy.mode": "site", "federation.strategy": "fedmedian"})

    assert changed.privacy.mode == "site"


def test_privacy_makes_another_run_but_a_larger_budget_goes_on(small_params: Params) -> None:
    def digest(**changes: Any) -> str:
        return config_digest(with_changes(small_params, {k.replace("__", "."): v for k, v in changes.items()}), "b", [])

    off, on = digest(), digest(**{"privacy__mode": "central", "federation__weighting": "equal"})

    def private(**more: Any) -> str:
        return digest(**{"privacy__mode": "central", "federation__weighting": "equal"}, **more)

    assert digest(privacy__clip_norm=3.0) == off
    assert digest(federation__weighting="equal") not in (off, on)
    assert private(privacy__target_epsilon=99.0, privacy__delta=1e-6) == on
    assert private(privacy__noise_multiplier=3.0) != on
