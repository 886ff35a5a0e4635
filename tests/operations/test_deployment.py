"""A whole deployment, by the commands that people type: up, watched, alerted on, restarted, left as it is."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from deployments import Deployed, typed_in
from docs_commands import documented
from network_services import wait_until
from prefect_api import post, states_of, tasks_of
from prometheus_client.parser import text_string_to_metric_families

from zk0.files import read_json
from zk0.operations import deploy
from zk0.services.process import Services
from zk0.steps import names_of

STEPS = names_of(deploy.STEPS)

EVERY = ("mlflow", "prefect-server", "prefect-worker", "superlink", "superexec", "gateway", "monitor")


def pids(deployed: Deployed) -> dict[str, int]:
    return {name: process.pid for name, process in Services(deployed.root / ".run").running().items()}


def fired(deployed: Deployed) -> list[dict[str, Any]]:
    """The alerts that began."""
    return [message for message in deployed.webhook.got if message["status"] == "firing"]


def scraped(deployed: Deployed) -> dict[tuple[str, ...], float]:
    """What Prometheus would see: name and label values to the value."""
    text = httpx.get(f"http://127.0.0.1:{deployed.config.ports.monitor}/metrics", trust_env=False).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_seven_steps_bring_everything_up(deployed: Deployed) -> None:
    said = [line for line in deployed.output.splitlines() if " of 7: " in line]
    seen = deployed.status()

    assert said == [f"{number} of 7: {step}" for number, step in enumerate(STEPS, start=1)]
    assert {one["name"]: one["up"] for one in seen["services"]} == dict.fromkeys(EVERY, True)
    assert [one["state"] for one in seen["certificates"]] == ["ok", "ok", "ok"]
    assert seen["alerts"] == [] and seen["run"] is None and seen["problem"] == ""
    assert deployed.webhook.got[0]["status"] == "test"
    assert "such an address often holds a secret" in deployed.output and "s3cret" not in deployed.output


def test_a_second_time_changes_nothing(deployed: Deployed) -> None:
    before, token = pids(deployed), (deployed.root / "security/operator.token").read_bytes()

    output = deployed.type("zk0 deploy")

    record = read_json(deployed.root / "results/deployment.json")
    assert [record[step]["changed"] for step in STEPS] == [False] * len(STEPS)
    assert "all of them ran before" in output
    assert pids(deployed) == before and (deployed.root / "security/operator.token").read_bytes() == token


def test_the_flow_shows_seven_steps_and_leaves_its_context(deployed: Deployed) -> None:
    line = documented("operate.md", "prefect deployment run deploy/once")
    done = typed_in(deployed.project, f"{line} --watch", PREFECT_API_URL=f"{deployed.config.prefect_url}/api")

    assert done.returncode == 0, done.stdout
    tasks = tasks_of(f"{deployed.config.prefect_url}/api", "deploy")
    assert [task["name"].rpartition("-")[0] for task in tasks] == list(STEPS)
    (state,) = states_of(f"{deployed.config.prefect_url}/api", "deploy")
    assert state["name"] == "Unchanged"
    context = read_json(deployed.root / "context.json")
    assert {task["flow_run_id"] for task in tasks} == {context["task_information"]["task_id"]["value"]}
    judged = {item["item"]: item["passed"] for item in context["task_description"]["success_criteria"]["value"]}
    assert judged == dict.fromkeys(
        (
            "every step completed",
            "every service answers",
            "every certificate lasts",
            "memory, disk and GPU suffice",
        ),
        True,
    )
    checked = context["quality_assurance"]["pre_task_checklist"]["value"]
    assert [item["passed"] for item in checked[:3]] == [True, True, True]
    recovery = context["risk_mitigation"]["recovery_procedures"]["value"]
    assert recovery[0].startswith("`zk0 deploy` starts what does not run")


def test_a_flow_run_that_fails_is_told_by_prefects_automation(deployed: Deployed) -> None:
    """The automation was made by the flow in the test above."""
    code = "from prefect import flow\n@flow(name='broken')\ndef broken(): raise OSError('s3cret')\nbroken()"
    env = {"PREFECT_API_URL": f"{deployed.config.prefect_url}/api"}

    deployed.project.attempt(sys.executable, "-c", code, **env)

    (told,) = wait_until(lambda: deployed.webhook.of("failed-flow"), "the automation's message")
    assert told["summary"].endswith("ended as Failed") and "s3cret" not in json.dumps(told)


def test_a_gateway_that_dies_is_alerted_and_comes_back_by_itself(deployed: Deployed) -> None:
    before = pids(deployed)

    os.kill(before["gateway"], signal.SIGKILL)

    wait_until(lambda: len(deployed.webhook.of("service-down")) == 2, "an alert of the gateway, and its end")
    told = deployed.webhook.of("service-down")
    assert [(one["status"], one["severity"], one["subject"]) for one in told] == [
        ("firing", "critical", "service gateway"),
        ("resolved", "critical", "service gateway"),
    ]
    after = pids(deployed)
    assert after.pop("gateway") != before.pop("gateway") and after == before


def test_a_gateway_that_was_stopped_stays_so_and_is_started_alone(deployed: Deployed) -> None:
    before, told = pids(deployed), len(deployed.webhook.of("service-down"))

    assert deployed.type("zk0 stop gateway") == "stopped: gateway\n"

    wait_until(lambda: len(deployed.webhook.of("service-down")) == told + 1, "an alert of the gateway")
    assert scraped(deployed)["zk0_service_up", "gateway"] == 0 and scraped(deployed)["zk0_alerts", "service-down"] == 1
    shown = deployed.type(documented("operate.md", "zk0 status"))
    assert "alert service-down: gateway does not run" in shown
    assert deployed.type(documented("operate.md", "zk0 restart gateway")) == "started: gateway\n"
    wait_until(lambda: len(deployed.webhook.of("service-down")) == told + 2, "the alert's end")
    assert deployed.webhook.of("service-down")[-1]["status"] == "resolved"
    after = pids(deployed)
    assert after.pop("gateway") != before.pop("gateway") and after == before


def test_certificates_are_rotated_and_the_superlink_takes_its_own(deployed: Deployed) -> None:
    before = pids(deployed)
    deployed.type(documented("operate.md", "zk0 security rotate"))

    assert deployed.type(documented("operate.md", "zk0 restart superlink")) == "started: superlink, superexec\n"

    after = pids(deployed)
    assert {name for name in before if before[name] != after[name]} == {"superlink", "superexec"}
    served = ssl.get_server_certificate(("127.0.0.1", deployed.config.ports.superlink))
    assert served.strip() == (deployed.root / "security/authority/superlink/server.pem").read_text().strip()


def test_prefect_has_the_alerts_as_events(deployed: Deployed) -> None:
    """Of the tests above; its own automations can act on them."""

    def found() -> list[str]:
        wanted = {"filter": {"event": {"prefix": ["zk0.alert"]}}}
        page = post(f"{deployed.config.prefect_url}/api/events/filter", wanted)
        return sorted(event["event"] for event in page["events"])

    wait_until(lambda: len(found()) >= 2, "events of the alert")
    assert {"zk0.alert.firing", "zk0.alert.resolved"} == set(found())


def test_logs_are_lines_of_json_and_can_be_followed(deployed: Deployed) -> None:
    gateway = [json.loads(line) for line in deployed.type(documented("operate.md", "zk0 logs gateway")).splitlines()]
    monitor = [json.loads(line) for line in deployed.type("zk0 logs monitor").splitlines()]

    assert "listening" in {line["event"] for line in gateway}
    assert {"watching", "alert-firing", "alert-resolved"} <= {line["event"] for line in monitor}
    command = [sys.executable, "-m", "zk0", "logs", "gateway", "--follow", "--lines", "1"]
    following = subprocess.Popen(
        command,
        cwd=deployed.root,
        env=deployed.project.env,
        stdout=subprocess.PIPE,
        text=True,
        # As at a terminal: tests that run in the background may have it ignored, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert following.stdout is not None and json.loads(following.stdout.readline()) == gateway[-1]
        with Services(deployed.root / ".run").log("gateway").open("a") as log:
            log.write('{"event": "added"}\n')
        assert json.loads(following.stdout.readline()) == {"event": "added"}
    finally:
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0
        following.stdout.close()


def test_no_secret_is_in_a_log_or_a_result(deployed: Deployed) -> None:
    secrets = [(deployed.root / "security" / name).read_text() for name in ("operator.token", "superexec.secret")]
    secrets.append("s3cret")
    written = [*(deployed.root / ".run").rglob("*.log"), *(deployed.root / ".run").rglob("*.json")]
    written += [*(deployed.root / "results").glob("*.json"), deployed.root / "context.json"]

    found = [str(path) for path in written for secret in secrets if secret in path.read_text(errors="replace")]
    assert len(written) > 10 and found == []


def test_services_take_no_more_memory_than_is_reckoned_with(deployed: Deployed) -> None:
    from zk0.network.config import group_of
    from zk0.operations.resources import SERVICES_BYTES

    taken: dict[Any, int] = {}
    for one in deployed.status()["services"]:
        group = group_of(one["name"])
        taken[group] = taken.get(group, 0) + one["memory_bytes"]

    assert {group: size for group, size in taken.items() if size > SERVICES_BYTES[group]} == {}


@pytest.mark.parametrize("name", ["mlflow"])
def test_stopped_with_all_that_it_started(deployed: Deployed, name: str) -> None:
    process = psutil.Process(pids(deployed)[name])
    family = [process, *process.children(recursive=True)]

    assert deployed.type(f"zk0 stop {name}") == f"stopped: {name}\n"

    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert name not in pids(deployed)
    shown = {one["name"]: one["up"] for one in deployed.status()["services"]}
    assert shown == {**dict.fromkeys(EVERY, True), name: False}

    assert deployed.type(f"zk0 restart {name}") == f"started: {name}\n"
    wait_until(lambda: deployed.status()["alerts"] == [], f"the end of the alert that {name} was stopped")


@pytest.mark.release
def test_upgrading_brings_everything_back(deployed: Deployed) -> None:
    """The documented commands, in their order; the new version is the old one."""
    before, sites = pids(deployed), deployed.status()["sites"]
    deployed.type(documented("operate.md", "zk0 backup ../before-upgrade.tar.gz"))

    assert deployed.type(documented("operate.md", "zk0 stop  ")).startswith("stopped: monitor, ")
    assert pids(deployed) == {}
    deployed.type("zk0 deploy")

    after = pids(deployed)
    assert set(after) == set(EVERY) and not set(after.values()) & set(before.values())
    assert deployed.status()["sites"] == sites
    wait_until(lambda: deployed.status()["alerts"] == [], "the end of all alerts")


def test_everything_is_started_again_and_nobody_is_alerted(deployed: Deployed) -> None:
    before, told = pids(deployed), fired(deployed)

    said = deployed.type(documented("operate.md", "zk0 restart  "))

    after = pids(deployed)
    assert set(said.removeprefix("started: ").strip().split(", ")) == set(EVERY) == set(after)
    assert not set(after.values()) & set(before.values())
    assert deployed.status()["alerts"] == [] and fired(deployed) == told


def test_a_misspelt_service_is_hinted_at(deployed: Deployed) -> None:
    done = typed_in(deployed.project, "zk0 restart gatway")

    assert done.returncode == 1 and "there is no service 'gatway'; did you mean 'gateway'?" in done.stderr
    assert Path(deployed.root / ".run").is_dir()
