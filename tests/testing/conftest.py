"""What real runs of pytest and coverage leave, of a project of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_project import FAILING, lay_out, run_alone

from zk0.testing.records import UNIT
from zk0.testing.reports import COVERAGE_JSON, JUNIT, suite_command


@pytest.fixture(scope="session")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tiny project after its unit tests: one passes, one fails, one cannot begin, one is skipped."""
    root = lay_out(tmp_path_factory.mktemp("tiny") / "project", test_tiny=FAILING)
    run_alone(root, *suite_command("not services", root / JUNIT[UNIT]))
    run_alone(root, "-m", "coverage", "json", "-q", "-o", str(root / COVERAGE_JSON), "--fail-under=0")
    return root
