"""A validation in a real MLflow store."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from zk0.measuring.rows import Row
from zk0.testing.records import (
    COVERAGE,
    UNIT,
    Case,
    Coverage,
    Covered,
    SimulatedRound,
    Simulation,
    StepResult,
    Suite,
    Validation,
)
from zk0.testing.reports import write_validation
from zk0.testing.track import track_validation
from zk0.tracking.store import opened


@pytest.fixture
def validation() -> Validation:
    """One step failed: a test did."""
    failed = Case(name="tests.test_a::test_b", outcome="failed", seconds=1.0, message="no", lines="assert no")
    package = Covered(name="src", lines=10, covered=9)
    rounds = ((0, 3.0, None), (1, 2.0, 1.5))
    return Validation(
        created="2026-05-02T05:00:00.000+00:00",
        steps=(
            StepResult(name=UNIT, status="failed", summary="7 passed, 1 failed, 0 skipped", problem="no", seconds=90.0),
            StepResult(name=COVERAGE, status="passed", summary="total 90.0%", seconds=2.0),
        ),
        suites={UNIT: Suite(passed=7, seconds=89.0, failures=(failed,), skips=(), slowest=(failed,))},
        coverage=Coverage(
            gate=0.8, total=Covered(name="total", lines=10, covered=9), packages=(package,), least=(package,)
        ),
        simulation=Simulation(
            sites=("a", "b"),
            findings=(),
            rounds=tuple(
                SimulatedRound(round=number, held_out_loss=loss, train_loss=train, sites=("a", "b"), seconds=1.0)
                for number, loss, train in rounds
            ),
            seconds=5.0,
        ),
        benchmarks=(
            Row(
                name="simulation at 96x96",
                work="frames",
                unit="frames/s",
                ours=100.0,
                peer=None,
                peer_name=None,
                ratio=None,
                limit=None,
                command="python -m benchmarks",
            ),
        ),
        machine={"cpu": "one"},
        packages={"zk0": "0.1.0", "pytest-cov": "7.1.0"},
        revision="a" * 40 + ", with uncommitted changes",
    )


def _only_run(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("zk0-testing")
    (run,) = client.search_runs([experiment.experiment_id])
    return str(run.info.run_id)


def test_everything_is_there_once(validation: Validation, tmp_path: Path) -> None:
    write_validation(tmp_path, validation)

    first = track_validation(tmp_path, "zk0", validation)
    again = track_validation(tmp_path, "zk0", validation)

    assert first == again
    with opened(tmp_path) as client:
        assert _only_run(client) == first
        run = client.get_run(first)
        curve = client.get_metric_history(first, "simulation/held_out_loss")
        files = {item.path for item in client.list_artifacts(first)}
        page = Path(client.download_artifacts(first, "testing.html")).read_text()
    assert run.info.status == "FAILED"
    assert run.info.end_time - run.info.start_time == 92_000
    assert run.data.metrics == {
        "steps/failed": 1.0,
        "time/unit-tests_s": 90.0,
        "time/coverage-analysis_s": 2.0,
        "unit-tests/passed": 7.0,
        "unit-tests/failed": 1.0,
        "unit-tests/skipped": 0.0,
        "coverage/total": 0.9,
        "coverage/src": 0.9,
        "bench/simulation-at-96x96/ours": 100.0,
        "simulation/held_out_loss": 2.0,
        "simulation/train_loss": 1.5,
    }
    assert [(point.step, point.value) for point in curve] == [(0, 3.0), (1, 2.0)]
    assert run.data.tags["zk0.verdict"] == "1 of 2 steps failed: unit tests"
    assert run.data.tags["mlflow.source.git.commit"] == "a" * 40
    assert run.data.params["version/pytest-cov"] == "7.1.0"
    assert files == {"testing.html", "testing.json"}
    assert "tests.test_a::test_b" in page


def test_one_that_was_cut_off_is_completed(validation: Validation, tmp_path: Path) -> None:
    """The page is not there yet, so tracking fails half-way; the next call fills the same run."""
    with pytest.raises(Exception, match=r"testing\.html"):
        track_validation(tmp_path, "zk0", validation)
    write_validation(tmp_path, validation)

    run = track_validation(tmp_path, "zk0", validation)

    with opened(tmp_path) as client:
        assert _only_run(client) == run
        assert {item.path for item in client.list_artifacts(run)} == {"testing.html", "testing.json"}


def test_sound_one_is_finished(validation: Validation, tmp_path: Path) -> None:
    sound = validation.model_copy(update={"steps": validation.steps[1:]})
    write_validation(tmp_path, sound)
    run = track_validation(tmp_path, "zk0", sound)
    with opened(tmp_path) as client:
        assert client.get_run(run).info.status == "FINISHED"
