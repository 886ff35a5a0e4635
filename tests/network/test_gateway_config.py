"""The gateway's configuration file, and the files that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from zk0.errors import StageError
from zk0.network.gateway.__main__ import main
from zk0.network.gateway.config import GatewayConfig
from zk0.network.security.files import Places, initialise


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return initialise(tmp_path_factory.mktemp("config") / "security", ["127.0.0.1"], "arms")


def test_a_configuration_comes_back(places: Places, tmp_path: Path) -> None:
    config = GatewayConfig.of(places, port=9444)
    config.write(tmp_path / "gateway.yaml")

    assert GatewayConfig.read(tmp_path / "gateway.yaml") == config
    main(["--config", str(tmp_path / "gateway.yaml"), "--check"])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"upstream": "http://127.0.0.1:8000"}, "upstream: must be https"),
        ({"upstream": "https://192.0.2.7:8000"}, "upstream: must be https://127.0.0.1:PORT"),
        ({"upstream": "https://127.0.0.1:8000/v1"}, "without a path"),
        ({"prot": 1}, "unknown key 'prot'; did you mean 'port'"),
        ({"port": 70000}, r"port: .*got 70000"),
        ({"object_limit_bytes": 1000}, "object_limit_bytes"),
        ({"pause_s": float("nan")}, "pause_s"),
    ],
)
def test_settings_that_cannot_be_are_refused(places: Places, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(StageError, match=match):
        GatewayConfig.of(places, **settings)


def test_files_that_cannot_be_are_refused_before_it_listens(places: Places, tmp_path: Path) -> None:
    def refused(content: Any, match: str) -> None:
        path = tmp_path / "gateway.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(SystemExit, match=match):
            main(["--config", str(path)])

    good = GatewayConfig.of(places).model_dump(mode="json")
    refused("a: [", "is not valid YAML")
    refused({name: value for name, value in good.items() if name != "key"}, "key is missing")
    refused(good | {"certificate": str(tmp_path / "none.pem")}, r"none\.pem is missing")
    other = initialise(tmp_path / "other", ["127.0.0.1"], "arms")
    refused(good | {"authority": str(other.authority / "ca.pem")}, "was not issued by this federation's authority")
    refused(good | {"key": str(places.authority / "superlink" / "server.key")}, "does not belong to the private key")
    with pytest.raises(SystemExit, match="is missing; it says where the gateway listens"):
        main(["--config", str(tmp_path / "nothing.yaml")])
