"""Configuration review: what is risky is named, with why; what is not is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zk0.checks import Check
from zk0.network.config import DeploymentConfig
from zk0.operations.review import review
from zk0.params import parse_params

CAREFUL: dict[str, Any] = {
    "policy": {"base": "random:nano"},
    "data": {"sites": {"cubes": "sim:push-red-cube-left"}},
    "federation": {"strategy": "trimmed-mean", "weighting": "equal", "min_replies": 0.6},
    "privacy": {"mode": "site", "target_epsilon": 8.0},
}
GUARDED: dict[str, Any] = {
    "hosts": ["robots.example.org"],
    "listen": "192.0.2.7",
    "alerts": {"webhook": "file:security/webhook"},
}


def risks(root: Path, params: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> list[Check]:
    changed = {**CAREFUL, **{name: {**CAREFUL.get(name, {}), **part} for name, part in (params or {}).items()}}
    return review(root, parse_params(changed), DeploymentConfig.parse({**GUARDED, **(config or {})}))


def test_careful_settings_are_not_complained_of(tmp_path: Path) -> None:
    assert risks(tmp_path) == []


@pytest.mark.parametrize(
    ("params", "config", "setting", "level"),
    [
        ({"federation": {"strategy": "fedavg"}}, {}, "federation.strategy fedavg", "high"),
        ({"federation": {"min_replies": 0.2}}, {}, "federation.min_replies 0.2", "high"),
        ({"federation": {"min_replies": 1.0}}, {}, "federation.min_replies 1", "note"),
        ({"federation": {"timeout_s": 5.0}}, {}, "federation.timeout_s 5", "note"),
        ({"federation": {"timeout_s": 7200.0}}, {}, "federation.timeout_s 7200", "note"),
        ({"privacy": {"mode": "off"}}, {}, "privacy.mode off", "high"),
        ({"privacy": {"target_epsilon": 20.0}}, {}, "privacy.target_epsilon 20", "note"),
        ({"promotion": {"require_safe": False}}, {}, "promotion.require_safe false", "high"),
        (
            {"policy": {"base": "hub:owner/policy@main"}},
            {},
            "policy.base hub:owner/policy@main",
            "note",
        ),
        ({}, {"hosts": ["localhost"]}, "hosts localhost", "note"),
        ({}, {"listen": "0.0.0.0"}, "listen 0.0.0.0", "note"),
        ({}, {"listen": "127.0.0.1"}, "listen 127.0.0.1", "note"),
        ({}, {"alerts": {}}, "alerts.webhook null", "note"),
        ({}, {"alerts": {"webhook": "http://chat.example.org"}}, "alerts.webhook http://chat.example.org", "high"),
        (
            {},
            {"alerts": {"webhook": "https://chat.example.org/T0/s3cret"}},
            "alerts.webhook of chat.example.org",
            "note",
        ),
        ({}, {"services": ["federation"]}, "services without monitor", "note"),
        (
            {},
            {"services": ["federation", "monitor"], "mlflow_url": "http://me:s3cret@mlflow.example.org"},
            "mlflow_url http://mlflow.example.org",
            "high",
        ),
    ],
)
def test_each_risky_setting_is_named(
    tmp_path: Path, params: dict[str, Any], config: dict[str, Any], setting: str, level: str
) -> None:
    (found,) = risks(tmp_path, params, config)

    assert (found.name, found.severity) == (setting, "warning" if level == "high" else level)
    assert found.found and found.advice and "s3cret" not in str(found)


def test_files_that_others_may_write_are_a_risk_and_the_gravest_come_first(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / "params.yaml").chmod(0o666)

    found = risks(tmp_path, {"federation": {"min_replies": 1.0}})

    assert [risk.name for risk in found] == ["params.yaml may be written by others", "federation.min_replies 1"]
