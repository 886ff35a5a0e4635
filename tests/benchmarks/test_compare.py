from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from tasks.benchmark import comparison_markdown
from zk0.measuring.history import QUICK, read_history, regressions
from zk0.measuring.rows import Report, row, write_report

MACHINE: dict[str, Any] = {"cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": []}


def report(ours: float, day: int) -> Report:
    rows = (row("round", "work", "s", ours, "command", peer=12.0, peer_name="Flower"), row("b", "w", "s", 1.0, "c"))
    return Report(machine=MACHINE, created=f"2026-11-{day:02}T05:00:00+00:00", rows=rows)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: Any) -> Path:
    shutil.copy(Path(__file__).parents[2] / "profiles" / "demo.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_run_has_nothing_to_compare_with(project: Path) -> None:
    write_report(project / QUICK, report(1.0, 1))
    done = CliRunner().invoke(app, ["--compare"])
    assert done.exit_code == 0, done.output
    assert "compared with 0 earlier runs" in done.output
    assert read_history(project) == [report(1.0, 1)]


def test_a_regression_ends_with_status_2_and_is_told_each_time(project: Path) -> None:
    for ours, day in ((1.0, 1), (1.1, 8)):
        write_report(project / QUICK, report(ours, day))
        assert CliRunner().invoke(app, ["--compare"]).exit_code == 0
    write_report(project / QUICK, report(2.0, 15))

    for _ in range(2):
        done = CliRunner().invoke(app, ["--compare"])
        assert done.exit_code == 2
        assert "worse than before: round: 2 s, 90% worse than 1.05" in done.output
    assert len(read_history(project)) == 3


def test_without_a_measurement_it_says_how_to_make_one(project: Path) -> None:
    done = CliRunner().invoke(app, ["--compare"])
    assert done.exit_code == 1
    assert "make bench-quick" in done.output


def test_the_table_marks_what_is_worse() -> None:
    worse = regressions(report(2.0, 8), [report(1.0, 1)], 0.25)
    text = comparison_markdown(report(2.0, 8), worse)
    assert "**1 figures are worse than before on this machine:**" in text
    assert "| round (worse) | 2 | 12 (Flower) | 6 | s |" in text
    assert "| b | 1 |  |  | s |" in text
    assert "worse" not in comparison_markdown(report(1.0, 8), [])
