"""The testing flow on a project of its own: everything real, and its tests those of a few lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests_support import Project, make_project
from tiny_project import FAILING, PASSING, SERVICES, lay_out

from zk0.testing.records import (
    BENCHMARK,
    COVERAGE,
    INTEGRATION,
    RECORD,
    SIMULATION,
    UNIT,
    Validation,
    read_record,
)
from zk0.tracking.store import opened

pytestmark = pytest.mark.services
_FLOW = "from flows.testing import testing; testing(tests={tests}, benchmarks={benchmarks})"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A whole project whose tests and coverage are those of the tiny one."""
    made = make_project(tmp_path / "project", tmp_path / "prefect")
    (made.root / "pyproject.toml").unlink()
    return made


def _statuses(root: Path) -> dict[str, str]:
    return {step.name: step.status for step in read_record(root / RECORD, Validation).steps}


def _experiment(root: Path) -> list[str]:
    with opened(root) as client:
        experiment = client.get_experiment_by_name("zk0-testing")
        return [run.info.status for run in client.search_runs([experiment.experiment_id])]


@pytest.mark.release
def test_sound_project_passes(project: Project) -> None:
    """`python -m flows.testing`, of fewer tests and benchmarks; `zk0 simulate` is one of its steps."""
    lay_out(project.root, test_tiny=PASSING, test_services=SERVICES)

    flow = _FLOW.format(tests=None, benchmarks=["simulation"])
    project.run("python", "-c", flow, timeout=590)

    found = read_record(project.root / RECORD, Validation)
    assert _statuses(project.root) == dict.fromkeys((UNIT, INTEGRATION, SIMULATION, BENCHMARK, COVERAGE), "passed")
    assert [suite.summary for suite in found.suites.values()] == [
        "2 passed, 0 failed, 0 skipped",
        "1 passed, 0 failed, 0 skipped",
    ]
    assert found.coverage is not None and found.coverage.total.share == 1.0
    assert found.simulation is not None and all(finding.passed for finding in found.simulation.findings)
    assert [row.name for row in found.benchmarks] and found.headline == "All 5 steps passed"
    assert _experiment(project.root) == ["FINISHED"]
    context = json.loads((project.root / "context.json").read_text())
    assert context["task_description"]["objective"]["value"].startswith("Test components")


def test_every_failure_is_reported_and_fails_the_flow(project: Project) -> None:
    """Each step fails in its own way, and none keeps the others or the report from running."""
    lay_out(project.root, test_tiny=FAILING)
    (project.root / "profiles/demo.yaml").unlink()
    state = project.root / "state/testing"
    state.mkdir(parents=True)
    (state / "integration.xml").write_text("<testsuites><testsuite time='1'/></testsuites>")  # of an earlier run

    done = project.attempt("python", "-c", _FLOW.format(tests=["tests"], benchmarks=["nonesuch"]), timeout=400)

    assert done.returncode != 0
    found = read_record(project.root / RECORD, Validation)
    steps = {step.name: step for step in found.steps}
    assert {name: step.status for name, step in steps.items()} == {
        UNIT: "failed",
        INTEGRATION: "nothing",
        SIMULATION: "failed",
        BENCHMARK: "failed",
        COVERAGE: "failed",
    }
    assert steps[UNIT].summary == "1 passed, 2 failed, 1 skipped"
    assert "tests.test_tiny::test_fails" in steps[UNIT].problem
    assert "no test is marked `services`" in steps[INTEGRATION].summary
    assert "profiles/demo.yaml not found" in steps[SIMULATION].problem
    assert "there is no benchmark 'nonesuch'" in steps[BENCHMARK].problem
    assert steps[COVERAGE].summary.startswith("below the gate of 80%: total, more ")
    page = (project.root / RECORD).with_suffix(".html").read_text()
    assert "<h1>4 of 5 steps failed: unit tests, federated simulation" in page and "only on Sundays" in page
    assert _experiment(project.root) == ["FAILED"]
    context = json.loads((project.root / "context.json").read_text())
    states = context["technical_context"]["current_state"]["value"]
    assert states["outcome"] == "Failed" and "4 of 5 steps failed" in states["error"]
    assert re.match(r"unit tests: Failed in [\d.]+ s", states["steps"][0])


@pytest.mark.release
def test_no_test_at_all_is_a_failure(project: Project) -> None:
    """Nothing to run may not look like nothing wrong; and what pytest refuses is told in its own words."""
    lay_out(project.root)
    (project.root / "profiles/demo.yaml").unlink()

    project.attempt("python", "-c", _FLOW.format(tests=["tests"], benchmarks=["nonesuch"]), timeout=400)
    none = read_record(project.root / RECORD, Validation).steps[0]
    project.attempt("python", "-c", _FLOW.format(tests=["absent"], benchmarks=["nonesuch"]), timeout=400)
    absent, _, _, _, coverage = read_record(project.root / RECORD, Validation).steps

    assert (none.status, none.summary) == ("failed", "no unit test was found in tests")
    assert absent.status == "failed" and "file or directory not found: absent" in absent.problem
    assert coverage.status == "failed"
    assert len(_experiment(project.root)) == 2
