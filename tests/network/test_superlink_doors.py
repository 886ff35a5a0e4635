"""The SuperLink's own doors on the server's machine: Control for the operator, Runtime for nobody."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from flwr.cli.constant import ACCESS_TOKEN_STORE_KEY, AUTHN_TYPE_STORE_KEY, REFRESH_TOKEN_STORE_KEY
from flwr.common.constant import AuthnType
from flwr.proto.control_pb2 import ListRunsRequest
from flwr.supercore.credential_store import FileCredentialStore
from gateway_traffic import (
    PROTOBUF,
    refusals,
)
from network_services import BIN, Federation

from zk0.errors import StageError

# The operator's door


def test_control_takes_the_operators_token_only(federation: Federation) -> None:
    with federation.control() as client:
        assert not client.ListRuns(ListRunsRequest()).run_dict
    with pytest.raises(StageError, match="runs with another operator token"), federation.control("wrong") as client:
        client.ListRuns(ListRunsRequest())
    context = ssl.create_default_context(cafile=str(federation.authority))
    url = f"https://{federation.superlink_address}/v1/control/list-runs"
    assert httpx.post(url, verify=context, headers=PROTOBUF, trust_env=False).status_code == 401


def test_nobody_takes_the_serverapps_work(federation: Federation) -> None:
    context = ssl.create_default_context(cafile=str(federation.authority))
    url = f"https://{federation.superlink_address}/v1/runtime/acquire-task"
    from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

    versions = dict(RuntimeVersionMetadata.from_local_component("flower-superexec").as_metadata())
    answer = httpx.post(url, verify=context, headers={**PROTOBUF, **versions}, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["code"] == 1008  # Runtime authentication failed


APP = """
[project]
name = "strange-app"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = []
[tool.flwr.app]
publisher = "stranger"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
"""


def flwr(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return subprocess.run(
        [str(BIN / "flwr"), *words], env=env, capture_output=True, text=True, check=False, timeout=120
    )


def operators_home(federation: Federation, home: Path) -> Path:
    """A FLWR_HOME with which `flwr` commands reach the SuperLink as ``zk0`` and bring the operator's token."""
    address, token = federation.superlink_address, federation.places.operator_token.read_text()
    home.mkdir()
    entry = f'[superlink.zk0]\naddress = "{address}"\nroot-certificates = "{federation.authority.resolve()}"\n'
    (home / "config.toml").write_text(entry)
    store = FileCredentialStore(home / "credentials.yaml")
    store.set(AUTHN_TYPE_STORE_KEY % address, AuthnType.OIDC.encode())
    store.set(ACCESS_TOKEN_STORE_KEY % address, token.encode())
    # Never sent unless the token is refused, and then refused as well; without one, flwr asks to log in.
    store.set(REFRESH_TOKEN_STORE_KEY % address, b"none")
    return home


def test_a_strangers_run_is_refused_and_the_operators_is_taken(federation: Federation, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP)
    (app / "LICENSE").write_text("none")
    (app / "app.py").write_text("from flwr.clientapp import ClientApp\nclient = server = ClientApp()\n")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    entry = '[superlink.{}]\naddress = "{}"\nroot-certificates = "{}"\n'
    (stranger / "config.toml").write_text(
        entry.format("gateway", federation.gateway_address, federation.authority)
        + entry.format("superlink", federation.superlink_address, federation.authority)
    )

    for connection in ("gateway", "superlink"):
        refused = flwr(stranger, "run", str(app), connection)
        assert refused.returncode, refused.stdout
    with federation.control() as client:
        assert not client.ListRuns(ListRunsRequest()).run_dict
    assert any(line["path"] == "/v1/control/start-run" for line in refusals(federation, "closed-path"))

    home = operators_home(federation, tmp_path / "operator")
    taken = flwr(home, "run", str(app), "zk0")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    with federation.control() as client:
        (run_id,) = client.ListRuns(ListRunsRequest()).run_dict
    assert flwr(home, "stop", str(run_id), "zk0").returncode == 0
