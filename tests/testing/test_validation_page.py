"""The page as a reader gets it, of what real runs of pytest and coverage left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zk0.testing.records import (
    COVERAGE,
    RECORD,
    SIMULATION,
    UNIT,
    StepResult,
    TestingError,
    Validation,
    read_record,
    write_record,
)
from zk0.testing.reports import collect, write_validation

CREATED = "2026-05-02T05:00:00.000+00:00"


def _steps(*failed: str) -> list[StepResult]:
    return [
        StepResult(
            name=name,
            status="failed" if name in failed else "passed",
            summary=f"{name} as told",
            problem="last line" if name in failed else "",
            seconds=61.0,
        )
        for name in (UNIT, SIMULATION, COVERAGE)
    ]


def test_page_holds_everything_and_loads_nothing(tested: Path) -> None:
    validation = collect(tested, CREATED, _steps(UNIT, COVERAGE))
    page = write_validation(tested, validation).read_text()

    assert "<h1>2 of 3 steps failed: unit tests, coverage analysis</h1>" in page
    for text in ("1 passed, 2 failed, 1 skipped", "only on Sundays", "more/halves.py", "25.0%", "1 min 01 s"):
        assert text in page, text
    assert "&lt;b&gt;left &amp; right&lt;/b&gt;" in page and "<b>left" not in page
    assert "lerobot" in page and "pytest-cov" in page and "Python 3.12" in page
    assert not re.search(r"<script|<link|<img|(src|href)=\"(?!#)", page)
    assert read_record(tested / RECORD, Validation) == validation


def test_step_without_results_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "state/testing").mkdir(parents=True)
    (tmp_path / "state/testing/unit.xml").write_text("<testsuites><testsui")
    (tmp_path / "results").mkdir()
    # Of an earlier benchmark: this run measured nothing.
    (tmp_path / "results/bench-quick.json").write_text("{}")

    validation = collect(tmp_path, CREATED, _steps(UNIT))
    page = write_validation(tmp_path, validation).read_text()

    assert (validation.suites, validation.coverage, validation.simulation) == ({}, None, None)
    assert (validation.benchmarks, validation.revision) == ((), None)
    assert page.count("see the steps") == 4 and "last line" in page


def test_record_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "testing.json"
    with pytest.raises(TestingError, match=r"testing.json is missing; run the testing workflow"):
        read_record(path, Validation)
    write_record(path, _steps()[0])
    with pytest.raises(TestingError, match=r"testing.json: created is missing; run"):
        read_record(path, Validation)
    path.write_text("{")
    with pytest.raises(TestingError, match="is not valid JSON"):
        read_record(path, Validation)
