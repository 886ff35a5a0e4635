"""JUnit XML of real runs of pytest."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_project import run_alone

from zk0.testing.records import UNIT, TestingError
from zk0.testing.reports import JUNIT, judge_suite, read_suite, suite_command


def test_every_outcome_is_read(tested: Path) -> None:
    suite = read_suite(tested / JUNIT[UNIT])

    assert suite.summary == "1 passed, 2 failed, 1 skipped"
    failed, broken = suite.failures
    assert (failed.name, failed.outcome) == ("tests.test_tiny::test_fails", "failed")
    assert failed.message == "AssertionError: <b>left & right</b>"
    assert "AssertionError" in failed.lines and "something else" in failed.lines
    assert (broken.outcome, "no such device" in broken.lines) == ("error", True)
    (skipped,) = suite.skips
    assert (skipped.name, skipped.message, skipped.lines) == ("tests.test_tiny::test_skipped", "only on Sundays", "")
    assert len(suite.slowest) == 4 and 0 < suite.slowest[0].seconds <= suite.seconds


def test_failures_are_named(tested: Path) -> None:
    with pytest.raises(TestingError) as error:
        judge_suite(read_suite(tested / JUNIT[UNIT]), 1, "1 failed")

    lines = str(error.value).splitlines()
    assert lines[0] == "1 passed, 2 failed, 1 skipped"
    assert lines[1] == "tests.test_tiny::test_fails: AssertionError: <b>left & right</b>"


def test_pytest_may_fail_without_a_failing_test(tested: Path) -> None:
    suite = read_suite(tested / JUNIT[UNIT]).model_copy(update={"failures": ()})

    assert judge_suite(suite, 0, "") == "1 passed, 0 failed, 1 skipped"
    with pytest.raises(TestingError, match=r"pytest failed, though no test did .*\nout of memory"):
        judge_suite(suite, 3, "out of memory")


def test_no_test_is_told_from_a_wrong_path(tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").touch()
    for path, expected in (("test_empty.py", None), ("absent", "file or directory not found")):
        done = run_alone(tmp_path, *suite_command("not services", tmp_path / "unit.xml", [path]))
        suite = read_suite(tmp_path / "unit.xml")
        assert suite.summary == "0 passed, 0 failed, 0 skipped"
        if expected is None:
            assert judge_suite(suite, done.returncode, done.stdout) is None
        else:
            with pytest.raises(TestingError, match=expected):
                judge_suite(suite, done.returncode, done.stdout + done.stderr)


def test_module_that_cannot_be_imported_fails(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    run_alone(tmp_path, *suite_command("not services", tmp_path / "unit.xml"))

    (case,) = read_suite(tmp_path / "unit.xml").failures
    assert case.outcome == "error" and "nothing_of_that_name" in case.lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing: pytest ended before"),
        ("<testsuites><testsuite", "is not XML .*: pytest was stopped"),
        ("<html/>", "holds <html>, expected JUnit's <testsuites>"),
    ],
)
def test_half_a_file_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "unit.xml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TestingError, match=message):
        read_suite(path)
