"""docs/federate-over-a-network.md, typed: from nothing to a finished federation, and what an operator does then."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import documented, typed
from network_services import free_port
from tests_support import REPO, Project

from zk0.errors import StageError
from zk0.files import read_json
from zk0.network.client.membership import memberships
from zk0.network.server.services import FederationServer
from zk0.network.server.steps import ROUND_STEPS, SECURITY_REPORT, STEPS
from zk0.params import load_params
from zk0.steps import names_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
PAGE = "federate-over-a-network.md"


@dataclass
class Walk:
    """A project in which every line of the walk-through was typed."""

    root: Path
    lines: list[str]
    said: dict[str, str]

    @property
    def server(self) -> FederationServer:
        return FederationServer(self.root)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    root = tmp_path_factory.mktemp("walk") / "project"
    root.mkdir()
    for name in ("profiles", "models", "requirements", "pyproject.toml", "constraints.md"):
        (root / name).symlink_to(REPO / name)
    block = re.findall(r"```bash\n(.*?)```", (REPO / "docs" / PAGE).read_text(), re.S)[0]
    made, ports = Walk(root, block.splitlines(), {}), (free_port(), free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        try:
            for line in made.lines:
                made.said[line] = typed(_here(line, *ports))
                if line.startswith("zk0 profile use"):
                    _change(root / "params.yaml", _smaller)
            yield made
        finally:
            for one in memberships(root):
                one.services.stop(list(one.services.running()))
            made.server.stop()


def _here(line: str, gateway: int, superlink: int) -> str:
    """A line as it is typed on a machine where other servers run."""
    line = line.partition("#")[0].replace(":9443", f":{gateway}")
    return f"{line} --port {gateway} --superlink-port {superlink}" if line.startswith("zk0 server start") else line


def _smaller(params: dict[str, Any]) -> None:
    """Fewer episodes and steps, for the tests' time."""
    params["data"]["episodes"] = 3
    params["training"] |= {"local_steps": 2, "batch": 4, "warmup_steps": 0}
    params["evaluation"]["loss_draws"] = 1


def test_eight_commands_make_a_federation(walk: Walk) -> None:
    assert len(walk.lines) <= 8
    run = read_json(walk.root / "results/federation/run.json")
    assert run["rounds"] == 3 and sorted(run["sites"]) == ["kitchen", "lab"]
    assert (walk.root / "checkpoints/best/model.safetensors").is_file()
    said = walk.said[walk.lines[-1]]
    for told in ("1 of 8: Flower server initialization", "4 to 6 of 8: round orchestration", "round 3 of 3", "8 of 8"):
        assert told in said
    assert "2 of 2 sites are there" in said and "held-out loss" in said


def test_the_checklist_finds_every_door_closed(walk: Walk) -> None:
    checks = {check["name"]: check for check in read_json(walk.root / SECURITY_REPORT)["checks"]}
    assert {name for name, check in checks.items() if not check["passed"]} == {"privacy budget", "robust strategy"}
    assert checks["control closed to the network"]["found"].count("404") == 4
    assert checks["keys registered"]["found"] == "2 keys, each an admitted site's"


def test_the_checklist_finds_what_is_open(walk: Walk) -> None:
    token = walk.server.places.operator_token
    token.chmod(0o644)
    try:
        with pytest.raises(StageError, match="is a secret, but its permissions are 0644"):
            typed("zk0 server check")
    finally:
        token.chmod(0o600)


def test_an_operator_looks_stops_and_goes_on(walk: Walk) -> None:
    status = typed(documented(PAGE, "zk0 server status").partition("#")[0])
    assert "superlink" in status and "kitchen" in status and "completed" in status
    before = read_json(walk.root / "results/federation/run.json")["checkpoints"]

    # it runs on a server that was stopped as well, and finds that all is done
    assert "stopped: gateway, superexec, superlink" in typed(documented(PAGE, "zk0 server stop").partition("#")[0])
    said = typed(documented(PAGE, "zk0 server run           # go on").partition("#")[0])

    assert "started: superlink, superexec, gateway" in said and "round-start" not in said
    assert read_json(walk.root / "results/federation/run.json")["checkpoints"] == before
    with pytest.raises(StageError, match="no run is in progress"):
        typed(documented(PAGE, "zk0 server watch").partition("#")[0])
    assert "no run was in progress" in typed(documented(PAGE, "zk0 server halt").partition("#")[0])


def test_without_keys_or_sites_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"no keys in .*: `zk0 security init --host NAME` makes them"):
        typed("zk0 server start")
    with pytest.raises(StageError, match=r"each site has a name and a public key; 'lab' stands alone"):
        typed("zk0 site admit kitchen site.pub lab --server 127.0.0.1:9443")
    with pytest.raises(StageError, match=r"operator.token is missing; `zk0 security init` makes one"):
        typed("zk0 server watch")
    assert typed("zk0 server status").count("does not run") == 3


@pytest.fixture
def flow(walk: Walk, tmp_path: Path) -> Project:
    """How the flow is run on the walk-through's project, with a Prefect of its own."""
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env |= {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "src")])}
    env.pop("PREFECT_API_URL", None)
    return Project(walk.root, env)


@pytest.mark.release
def test_the_flow_shows_the_eight_steps(walk: Walk, flow: Project) -> None:
    _change(walk.root / "params.yaml", _another_of_one_round)

    done = flow.run(sys.executable, "-m", "flows.server")

    steps = _context(walk, "technical_context", "current_state")["steps"]
    assert [line.partition(":")[0] for line in steps] == list(names_of(STEPS))
    log = done.stdout + done.stderr
    for step in ROUND_STEPS:
        assert f"{step.name}, round 1" in log
    checklist = {item["item"]: item["passed"] for item in _context(walk, "quality_assurance", "pre_task_checklist")}
    assert checklist["All constraints verified"] and checklist["Success criteria defined"]
    criteria = {item["item"]: item["passed"] for item in _context(walk, "task_description", "success_criteria")}
    assert criteria["every step completed"] and criteria["1 federated rounds completed"]


@pytest.mark.release
def test_the_recovery_command_of_a_flow_that_failed_works(walk: Walk, flow: Project) -> None:
    _change(walk.root / "params.yaml", _another_of_one_round)
    typed("zk0 client stop lab")
    failed = flow.attempt(sys.executable, "-c", "from flows.server import server; server(wait_s=1.0)")
    assert failed.returncode and "1 of 2 sites are there" in failed.stdout + failed.stderr
    (recovery,) = [
        line for line in _context(walk, "risk_mitigation", "recovery_procedures") if line.startswith("`zk0 server run`")
    ]

    typed("zk0 client start lab")
    typed(recovery.split("`")[1])

    run, params = read_json(walk.root / "results/federation/run.json"), load_params(walk.root / "params.yaml")
    assert (run["rounds"], run["params"]["seed"]) == (1, params.seed)


def _another_of_one_round(params: dict[str, Any]) -> None:
    """Another run than any before it here."""
    params["federation"]["rounds"] = 1
    params["seed"] += 1


def _context(walk: Walk, section: str, field: str) -> Any:
    return read_json(walk.root / "context.json")[section][field]["value"]


def _change(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    params = yaml.safe_load(file.read_text())
    change(params)
    file.write_text(yaml.safe_dump(params))
