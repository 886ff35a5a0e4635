"""The flows on a real Prefect server: a whole run, an unchanged one, deployments and schedules."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from docs_commands import documented
from prefect_api import post, states_of
from tests_support import make_project


def test_cron_produces_scheduled_runs(served: Any) -> None:
    """The one thing a wrong SQLAlchemy silences."""
    _, api = served
    deadline = time.monotonic() + 120
    while not (scheduled := [s for s in states_of(api) if s["type"] == "SCHEDULED" and s["auto"]]):
        assert time.monotonic() < deadline, "the cron schedules produced no run"
        time.sleep(2)
    assert scheduled[0]["name"] == "Scheduled"


def test_nightly_completes_then_is_unchanged(served: Any) -> None:
    project, api = served

    project.run("prefect", "deployment", "run", "federate/nightly", "--watch", PREFECT_API_URL=api, timeout=580)
    first = json.loads((project.root / "context.json").read_text())
    project.run("prefect", "deployment", "run", "federate/nightly", "--watch", PREFECT_API_URL=api, timeout=300)
    second = json.loads((project.root / "context.json").read_text())

    ended = [state for state in states_of(api, "federate") if not state["auto"]]
    assert sorted(state["name"] for state in ended) == ["Completed", "Unchanged"]
    names = [re.sub(r"\d", "n", run["name"]) for run in post(f"{api}/flow_runs/filter", {"sort": "START_TIME_ASC"})]
    nightly = [
        name for name in names if "federate nnnn-nn-nn nightly" in name and name != "federate nnnn-nn-nn nightly"
    ]
    champion = "champion" in project.run("zk0", "runs").stdout
    again = "nothing new since champion n" if champion else "from base"
    assert nightly == [f"federate nnnn-nn-nn nightly {start}" for start in ("from base", again)]
    nights = [artifact for artifact in post(f"{api}/artifacts/filter", {"limit": 100}) if artifact["key"] == "nights"]
    first_night, both = sorted((artifact["data"] for artifact in nights), key=len)
    assert [data.count("\n| 20") for data in (first_night, both)] == [1, 2]
    assert "fedavg-" in first_night and "zk0-smolvla/1" in first_night
    assert "| Unchanged |" in both.splitlines()[2] and "nothing was new" in both
    assert first["task_information"]["mode"]["value"] == "scheduled"
    assert first["task_information"]["task_id"] != second["task_information"]["task_id"]
    experiments = project.run("dvc", "exp", "list", "--name-only").stdout.split()
    assert any(name.startswith("nightly-") for name in experiments)
    shown = json.loads(project.run("zk0", "model", "show", "1", "--json").stdout)
    assert any(name in json.dumps(shown) for name in experiments if name.startswith("nightly-"))


def test_benchmark_always_measures(served: Any) -> None:
    project, api = served
    before = (project.root / "results/benchmark.json").read_text()

    # Without the benchmarks beside peers, which take minutes and have tests of their own.
    words = ("prefect", "deployment", "run", "benchmark/weekly", "--param", "peers=false", "--watch")
    project.run(*words, PREFECT_API_URL=api, timeout=300)

    assert (project.root / "results/benchmark.json").read_text() != before


_QUICK = """
from pathlib import Path
from prefect import flow
from tasks.benchmark import compare_benchmarks, measure_beside_peers

@flow
def quick():
    measure_beside_peers(Path.cwd(), only=("simulation",))
    print("WORSE", compare_benchmarks(Path.cwd()))

quick()
"""


@pytest.mark.release
def test_quick_benchmarks_are_compared_with_earlier_ones(served: Any) -> None:
    """One of them for real, twice; before the second, the first is made out to have been ten times as fast."""
    project, api = served
    first = project.run("python", "-c", _QUICK, PREFECT_API_URL=api, timeout=300).stdout
    history = project.root / "state/benchmarks/history.jsonl"
    report = json.loads(history.read_text())
    for row in report["rows"]:
        row["ours"] *= 10
    history.write_text(json.dumps(report) + "\n")

    second = project.run("python", "-c", _QUICK, PREFECT_API_URL=api, timeout=300).stdout

    assert "WORSE []" in first
    assert "WORSE ['simulation at 96x96: " in second
    assert len(history.read_text().splitlines()) == 2
    found = [a for a in post(f"{api}/artifacts/filter", {"limit": 100}) if a["key"] == "benchmark-comparison"]
    assert any("are worse than before" in artifact["data"] for artifact in found)


@pytest.mark.release
def test_testing_is_deployed_and_shows_its_report(served: Any) -> None:
    """The documented command, of a part: a path without tests and a benchmark that does not exist fail the flow."""
    project, api = served
    words = ["prefect", "deployment", "run", "testing/weekly", "--watch"]
    words += ["--param", 'tests=["absent"]', "--param", 'benchmarks=["nonesuch"]']

    done = project.attempt(*words, PREFECT_API_URL=api, timeout=580)

    assert done.returncode != 0
    (ended,) = [state for state in states_of(api, "testing") if state["type"] == "FAILED"]
    assert "4 of 5 steps failed: unit tests, " in ended["message"] and "see results/testing.html" in ended["message"]
    found = [a for a in post(f"{api}/artifacts/filter", {"limit": 100}) if a["key"] == "validation"]
    assert "file or directory not found: absent" in found[0]["data"]
    assert "| federated simulation | passed | 3 sites, 3 rounds" in found[0]["data"]
    assert (project.root / "results/testing.html").is_file()


def test_artifacts_show_the_run(served: Any) -> None:
    _, api = served
    keys = {artifact["key"] for artifact in post(f"{api}/artifacts/filter", {"limit": 100})}
    assert {"comparison", "benchmark", "report", "task-context", "federation"} <= keys


_STEPS = (
    "environment setup",
    "model loading",
    "dataset preparation",
    "training configuration",
    "local training",
    "parameter extraction",
    "server communication",
    "model update",
    "validation",
)
_NEW = "prefect deployment run train/once --param data=local:cups"
_SMALL = " --param base=random:nano --param device=cpu --param saves=2 --param batch=2"


@pytest.mark.usefixtures("cups")
def test_train_once_shows_the_nine_documented_steps(served: Any) -> None:
    project, api = served
    line = documented("train.md", _NEW).replace("steps=2000", "steps=2") + _SMALL

    project.run(*line.split(), PREFECT_API_URL=api, timeout=580)

    (flow,) = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
    assert flow["state"]["name"] == "Completed"
    asked = {"flow_runs": {"id": {"any_": [flow["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    runs = post(f"{api}/task_runs/filter", asked)
    ended = [run["name"] for run in sorted(runs, key=lambda run: run["end_time"])]
    a_round = _STEPS[4:8]
    expected = [*_STEPS[:4], *(f"{step}, round {n}" for n in (1, 2) for step in a_round), _STEPS[8]]
    assert [name if ", round" in name else name.rpartition("-")[0] for name in ended] == expected
    context = json.loads((project.root / "context.json").read_text())
    assert context["task_information"]["task_id"]["value"] == flow["id"]
    told = context["technical_context"]["current_state"]["value"]
    assert [line.partition(":")[0] for line in told["steps"]] == list(_STEPS)
    shown = project.run("zk0", "model", "show", "1", "--json", "--params", "trainings/cups/params.yaml").stdout
    assert json.loads(shown)["flow_run"] == flow["id"]


def test_train_once_goes_on_by_name_and_finds_nothing_to_do(served: Any) -> None:
    """Follows the test above; the command is the one that its context names for recovery."""
    project, api = served
    context = json.loads((project.root / "context.json").read_text())
    assert context["risk_mitigation"]["recovery_procedures"]["value"] == [
        "`zk0 train --name cups`, from the project's root, goes on with it, after round 2"
    ]

    line = documented("train.md", "prefect deployment run train/once --param name=cups")
    project.run(*line.split(), PREFECT_API_URL=api, timeout=400)

    runs = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
    assert sorted(run["state"]["name"] for run in runs) == ["Completed", "Unchanged"]


def test_a_training_that_is_refused_leaves_its_context_and_no_folder(served: Any) -> None:
    project, api = served

    line = _NEW.replace("cups", "absent") + _SMALL + " --watch"
    project.attempt(*line.split(), PREFECT_API_URL=api, timeout=400)

    runs = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
    assert "Failed" in [run["state"]["name"] for run in runs]
    context = json.loads((project.root / "context.json").read_text())
    assert "environment setup: Failed" in context["technical_context"]["current_state"]["value"]["steps"][0]
    assert "absent does not exist" in context["technical_context"]["current_state"]["value"]["error"]
    assert "nothing is left of it" in context["risk_mitigation"]["recovery_procedures"]["value"][0]
    assert not (project.root / "trainings" / "absent").exists()


def test_deployments_are_what_prefect_knows() -> None:
    """prefect.yaml ignores unknown keys, so they are checked here against Prefect's own schema."""
    import yaml

    content = yaml.safe_load((Path(__file__).resolve().parents[2] / "prefect.yaml").read_text())
    known = {"name", "entrypoint", "description", "tags", "parameters", "work_pool", "schedules", "concurrency_limit"}
    for deployment in content["deployments"]:
        assert set(deployment) <= known
        for schedule in deployment["schedules"]:
            assert {"slug", "cron", "timezone", "active"} == set(schedule)
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_failed_run_leaves_context(served: Any, tmp_path: Path) -> None:
    """A flow whose stage refuses ends as failed, and context.json says at which step and why."""
    project = make_project(tmp_path / "project", tmp_path / "prefect")
    project.change_params(lambda p: p["policy"].update(base="models/absent"))

    done = project.attempt("python", "-m", "flows.federate", PREFECT_API_URL=served[1], timeout=300)

    assert done.returncode != 0
    context = json.loads((project.root / "context.json").read_text())
    assert "models/absent" in json.dumps(context)
