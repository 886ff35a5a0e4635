from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zk0.measuring.history import HISTORY, remember
from zk0.measuring.rows import BenchmarkError, Report, row
from zk0.tracking.benchmarks import COUNT, MACHINE, REGRESSIONS, metrics_of, track_benchmarks
from zk0.tracking.store import opened, runs

HERE: dict[str, Any] = {"cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": []}


def report(ours: float, day: int) -> Report:
    rows = (
        row("local step, tokens kept", "work", "s", ours, "command", peer=30.0, peer_name="LeRobot"),
        row("round of 40 sites", "work", "s", 1.0, "command"),
    )
    return Report(machine=HERE, created=f"2026-11-{day:02}T05:00:00+00:00", rows=rows)


def test_each_quick_benchmark_is_one_run_with_its_figures(tmp_path: Path) -> None:
    remember(tmp_path, report(2.0, 1))
    remember(tmp_path, report(3.0, 8))

    added = track_benchmarks(tmp_path, "zk0-benchmarks", 0.25)

    assert len(added) == 2
    with opened(tmp_path) as client:
        experiment = client.get_experiment_by_name("zk0-benchmarks")
        later, first = runs(client, experiment.experiment_id, "")
    assert first.data.metrics["bench/local-step-tokens-kept/ours"] == 2.0
    assert first.data.metrics["bench/local-step-tokens-kept/ratio"] == 15.0
    assert "bench/round-of-40-sites/peer" not in first.data.metrics
    assert first.data.metrics[COUNT] == 0
    assert first.data.tags[REGRESSIONS] == "none"
    assert later.data.metrics[COUNT] == 1
    assert later.data.tags[REGRESSIONS].startswith("local step, tokens kept: 3 s, 50% worse than 2")
    assert later.data.tags[MACHINE] == report(1.0, 1).machine_id
    kept = json.loads((tmp_path / later.info.artifact_uri / "benchmark.json").read_text())
    assert kept == report(3.0, 8).model_dump(mode="json")


def test_tracking_again_changes_nothing(tmp_path: Path) -> None:
    remember(tmp_path, report(2.0, 1))
    track_benchmarks(tmp_path, "zk0-benchmarks", 0.25)

    assert track_benchmarks(tmp_path, "zk0-benchmarks", 0.25) == ()

    remember(tmp_path, report(2.1, 8))
    assert len(track_benchmarks(tmp_path, "zk0-benchmarks", 0.25)) == 1


def test_a_projection_cut_off_is_completed(tmp_path: Path) -> None:
    remember(tmp_path, report(2.0, 1))
    (run_id,) = track_benchmarks(tmp_path, "zk0-benchmarks", 0.25)
    with opened(tmp_path) as client:
        client.update_run(run_id, status="RUNNING")

    assert track_benchmarks(tmp_path, "zk0-benchmarks", 0.25) == (run_id,)

    with opened(tmp_path) as client:
        assert client.get_run(run_id).info.status == "FINISHED"
        assert len(client.get_metric_history(run_id, COUNT)) == 1


def test_damaged_history_is_told(tmp_path: Path) -> None:
    (tmp_path / HISTORY).parent.mkdir(parents=True)
    (tmp_path / HISTORY).write_text("{}\n")
    with pytest.raises(BenchmarkError, match=r"history.jsonl, line 1: machine is missing"):
        track_benchmarks(tmp_path, "zk0-benchmarks", 0.25)


def test_metrics_are_named_by_row() -> None:
    assert set(metrics_of(report(2.0, 1))) == {
        "bench/local-step-tokens-kept/ours",
        "bench/local-step-tokens-kept/peer",
        "bench/local-step-tokens-kept/ratio",
        "bench/round-of-40-sites/ours",
    }
