"""Starting what deployment.yaml names: all or nothing, and what was running stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from network_services import free_port

from zk0.errors import StageError
from zk0.files import write_text
from zk0.network.config import DeploymentConfig
from zk0.network.security.files import set_up_security
from zk0.operations.deploy import Deployment, remember, run_step, set_up_monitoring
from zk0.operations.deploy import start_services as startup
from zk0.operations.start import restart_services, start_groups, stop_services
from zk0.params import parse_params
from zk0.services.process import Services, own_environment
from zk0.steps import Outcome

pytestmark = pytest.mark.services


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A project with keys; what runs there is stopped."""
    set_up_security(tmp_path / "security", ["localhost"], "arms")
    yield tmp_path
    stop_services(tmp_path)


def config(root: Path, services: list[str], **more: Any) -> DeploymentConfig:
    ports = {name: free_port() for name in ("gateway", "superlink", "gateway_metrics", "monitor")}
    content = {"federation": "arms", "listen": "127.0.0.1", "services": services, "ports": {**ports, **more}}
    content |= {"prefect_url": None, "mlflow_url": f"http://127.0.0.1:{free_port()}"}
    write_text(root / "deployment.yaml", yaml.safe_dump(content))
    return DeploymentConfig.parse(content)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_one_that_cannot_start_takes_the_others_with_it(root: Path, taken: int) -> None:
    """MLflow comes up; the gateway finds its port taken, so SuperLink and MLflow are stopped again."""
    wanted = config(root, ["mlflow", "federation", "monitor"], gateway=taken)

    with pytest.raises(StageError, match=rf"federation: (.|\n)*cannot listen on 127\.0\.0\.1 port {taken}") as refused:
        start_groups(root, wanted, wanted.services)

    assert "what was started with it is stopped again" in str(refused.value)
    assert Services(root / ".run").known() == []


def test_monitoring_that_fails_undoes_this_deployments_services(root: Path, taken: int) -> None:
    """Of an earlier step; what ran before the deployment goes on."""
    services = Services(root / ".run")
    for name in ("gateway", "prefect-worker"):
        services.launch(name, ["sleep", "60"], own_environment())
    remember(root, startup, Outcome(changed=True, facts={"started": ["gateway"]}))
    params = parse_params({"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:push-red-cube-left"}}})
    deployment = Deployment(root, params, config(root, ["monitor"], monitor=taken))

    with pytest.raises(StageError, match=r"ports\.monitor .* is taken"):
        run_step(deployment, set_up_monitoring)

    assert list(services.running()) == ["prefect-worker"]


def test_what_is_not_wanted_here_is_not_started(root: Path) -> None:
    with pytest.raises(StageError, match="does not name mlflow among its services"):
        restart_services(root, config(root, ["monitor"]), ["mlflow"])


def test_services_inherit_nothing_of_the_flow_run_that_starts_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "of another")
    wanted = config(root, ["monitor"])

    assert start_groups(root, wanted, wanted.services, {"ZK0_GPU_SHARE": "0.5"}) == ["monitor"]

    (process,) = Services(root / ".run").running().values()
    inherited = process.environ()
    assert inherited["ZK0_GPU_SHARE"] == "0.5" and "PREFECT__FLOW_RUN_ID" not in inherited
    assert os.environ["PREFECT__FLOW_RUN_ID"] == "of another" and "ZK0_GPU_SHARE" not in os.environ


def test_one_that_stays_stops_all_when_it_is_told_to_end(root: Path) -> None:
    """As a container's only command; `zk0 status --check` is its health."""
    config(root, ["monitor"])
    params = {"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:push-red-cube-left"}}}
    write_text(root / "params.yaml", yaml.safe_dump(params))
    zk0, services = [sys.executable, "-m", "zk0"], Services(root / ".run")

    def health() -> int:
        return subprocess.run([*zk0, "status", "--check"], cwd=root, capture_output=True, check=False).returncode

    before = health()
    with subprocess.Popen([*zk0, "deploy", "--stay"], cwd=root, stdout=subprocess.PIPE, text=True) as staying:
        lines = iter(staying.stdout.readline, "")  # type: ignore[union-attr]
        assert any("`zk0 stop` stops it" in line for line in lines), "it ended by itself"
        while_there, running = health(), list(services.running())
        staying.terminate()
        told = list(lines)

    assert (before, while_there, running) == (1, 0, ["monitor"])
    assert (staying.returncode, told) == (0, ["stopped: monitor\n"])
    assert list(services.running()) == []
