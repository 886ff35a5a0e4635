"""The JSON of a real run of coverage, against gates."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.testing.records import TestingError
from zk0.testing.reports import COVERAGE_JSON, judge_coverage, read_coverage, read_gate


def test_modules_are_summed_by_package(tested: Path) -> None:
    coverage = read_coverage(tested / COVERAGE_JSON, read_gate(tested))

    # `double` is called and `half` is not: 2 of 2 lines, and none of 6, since nothing imports it.
    shares = {part.name: (part.covered, part.lines) for part in coverage.packages}
    assert shares == {"more": (0, 6), "package": (2, 2)}
    assert (coverage.total.covered, coverage.total.lines, coverage.gate) == (2, 8, 0.8)
    assert [module.name for module in coverage.least] == ["more/halves.py"]


def test_a_package_below_the_gate_fails(tested: Path) -> None:
    with pytest.raises(TestingError, match=r"below the gate of 80%: total, more \(total 25.0%") as error:
        judge_coverage(read_coverage(tested / COVERAGE_JSON, 0.8))
    assert "more/halves.py 0.0%" in str(error.value)

    with pytest.raises(TestingError, match="below the gate of 20%: more "):
        judge_coverage(read_coverage(tested / COVERAGE_JSON, 0.2))


def test_gate_is_reached(tested: Path) -> None:
    assert judge_coverage(read_coverage(tested / COVERAGE_JSON, 0.0)) == "total 25.0%, more 0.0%, package 100.0%"


def test_gate_is_that_of_make_test(tmp_path: Path) -> None:
    assert read_gate(tmp_path) == 0.8
    (tmp_path / "pyproject.toml").write_text("[tool.coverage.report]\nfail_under = 92.5\n")
    assert read_gate(tmp_path) == 0.925
    assert read_gate(Path(__file__).resolve().parents[2]) == 0.85


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "is missing: no coverage was measured"), ("[]", "is not what"), ('{"files": {}}', "covers no line")],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "coverage.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TestingError, match=message):
        read_coverage(path, 0.8)
