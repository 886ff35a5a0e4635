"""The flow client as a robot owner deploys it: eight tasks, and a run of a real server in between."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import documented
from network_services import free_port, wait_until
from prefect_api import post, states_of, tasks_of

from zk0.network.security.files import initialise
from zk0.network.security.invitation import admit_site
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer
from zk0.network.server.steps import prepare

pytestmark = [pytest.mark.services, pytest.mark.release]

STEPS = (
    "dependency installation",
    "Flower client initialization",
    "dataset partitioning",
    "model configuration",
    "server connection",
    "training loop",
    "parameter synchronization",
    "logging and monitoring",
)
_SMALL = " --param base=random:nano --param device=cpu --param threads=2 --param wait_s=300"


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationServer]:
    """A server on loopback with a project of its own: no data, one round of one step."""
    root = tmp_path_factory.mktemp("operator")
    params = {
        "policy": {"base": "random:nano"},
        "data": {"sites": {"elsewhere": "local:elsewhere"}, "missing_cameras": "empty"},
        "training": {"local_steps": 1, "batch": 2, "warmup_steps": 0},
        "federation": {"rounds": 1},
        "evaluation": {"loss_draws": 1, "rollouts": 0, "videos": 0},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    initialise(root / "security", ["127.0.0.1"], "arms")
    server = FederationServer(root)
    try:
        server.start(host="127.0.0.1", port=free_port(), upstream=f"https://127.0.0.1:{free_port()}")
        yield server
    finally:
        server.stop()


@pytest.mark.usefixtures("cups")
def test_client_once_shows_the_eight_documented_steps(served: Any, operator: FederationServer) -> None:
    project, api = served
    root: Path = project.root
    project.run(*documented("join.md", "zk0 client keys").split())
    address = operator.gateway_url.removeprefix("https://")
    sent = admit_site(operator.places.folder, "kitchen", root / "site-keys" / "site.pub", address)
    shutil.copy(sent, root / "kitchen.json")
    operator.sync()
    line = documented("join.md", "prefect deployment run client/once") + _SMALL
    env = project.env | {"PREFECT_API_URL": api}
    with subprocess.Popen(line.split(), cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as flow:
        try:
            home = root / "memberships" / "kitchen"

            def connected() -> bool:
                done = [task["name"] for task in tasks_of(api, "client") if task["state_type"] == "COMPLETED"]
                return any(name.startswith("server connection") for name in done)

            wait_until(lambda: flow.poll() is not None or connected(), "the connection", 240)
            assert flow.poll() is None, flow.communicate()[0].decode()[-3000:]
            prepare(operator)
            assert [event.event for event in watch(operator, submit(operator))][-1] == "done"
            told = flow.communicate(timeout=120)[0].decode()
        finally:
            flow.kill()
            stopped = project.attempt("zk0", "client", "stop").stdout

    assert [state["name"] for state in states_of(api, "client")] == ["Completed"], told[-3000:]
    assert [task["name"].rpartition("-")[0] for task in tasks_of(api, "client")] == list(STEPS)
    assert "stopped: superexec, supernode, trainer" in stopped  # the site outlived the flow
    summary = json.loads((home / "results" / "site" / "summary.json").read_text())
    assert summary["connected"] and [one["judged"] for one in summary["rounds"]] == [True]
    context = json.loads((root / "context.json").read_text())
    told_steps = context["technical_context"]["current_state"]["value"]["steps"]
    assert [step.partition(":")[0] for step in told_steps] == list(STEPS)
    assert all(item["passed"] for item in context["task_description"]["success_criteria"]["value"])
    keys = {artifact["key"] for artifact in post(f"{api}/artifacts/filter", {"limit": 200})}
    assert {"site", "data-check", "task-context"} <= keys


def test_its_context_names_the_command_that_starts_the_site_again(served: Any, operator: FederationServer) -> None:
    """Follows the test above."""
    project, _ = served
    context = json.loads((project.root / "context.json").read_text())
    again = context["risk_mitigation"]["recovery_procedures"]["value"][0]
    assert again.startswith("`zk0 client start kitchen`")
    try:
        began = time.monotonic()
        said = project.run(*again.split("`")[1].split()).stdout
        assert "is connected as node" in said, (said, time.monotonic() - began)
    finally:
        project.run("zk0", "client", "stop")
