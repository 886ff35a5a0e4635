"""deployment.yaml: read, refused with reasons, written explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from zk0.errors import StageError
from zk0.network.config import DeploymentConfig, write_default


def test_default_file_is_valid_and_says_what_the_code_does(tmp_path: Path) -> None:
    write_default(tmp_path / "deployment.yaml", ["robots.example.org", "192.0.2.7"])

    found = DeploymentConfig.read(tmp_path / "deployment.yaml")

    assert found == DeploymentConfig(hosts=("robots.example.org", "192.0.2.7"))
    written = yaml.safe_load((tmp_path / "deployment.yaml").read_text())
    assert set(written) == set(DeploymentConfig.model_fields)


def test_it_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text("federation: mine\n")

    with pytest.raises(StageError, match="is there already; edit it"):
        write_default(tmp_path / "deployment.yaml", ["here"])
    assert (tmp_path / "deployment.yaml").read_text() == "federation: mine\n"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="`zk0 deploy init --host NAME` writes one"):
        DeploymentConfig.read(tmp_path / "deployment.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"port": {}}, "unknown key 'port'; did you mean 'ports'?"),
        ({"services": ["mlfow"]}, "services.0"),
        ({"ports": {"gateway": 8000}}, "gateway and superlink both want port 8000"),
        ({"ports": {"monitor": 4200}}, "monitor and prefect both want port 4200"),
        (
            {"mlflow_url": "http://192.0.2.7:5000"},
            "mlflow_url must be http://127.0.0.1:PORT while",
        ),
        ({"mlflow_url": None}, "mlflow_url must be http://127.0.0.1:PORT"),
        ({"prefect_url": "4200"}, "must be an address"),
        ({"alerts": {"webhook": "robots.example.org"}}, "alerts.webhook: must be an address"),
        ({"resources": {"gpu_share": 0}}, "resources.gpu_share"),
        ({"hosts": []}, "hosts"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(content: dict[str, Any], words: str) -> None:
    with pytest.raises(StageError) as refused:
        DeploymentConfig.parse(content, "deployment.yaml")

    assert words in str(refused.value)


def test_servers_elsewhere_may_be_anywhere() -> None:
    found = DeploymentConfig.parse({"services": ["federation"], "mlflow_url": "https://mlflow.example.org"})

    assert found.local_urls() == {} and found.mlflow_url == "https://mlflow.example.org"
