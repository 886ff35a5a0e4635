"""Run the tests by pytest, and read the JUnit XML that it writes."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zk0.testing.records import Case, Suite, TestingError, last_lines

MARKER = "services"
_SLOWEST = 10
_NO_TEST = 5  # pytest.ExitCode.NO_TESTS_COLLECTED
_NEEDED = ("pytest", "pytest_cov", "pytest_timeout", "xdist")
# A test decides for itself what it is told: neither the flow that runs the tests, nor pytest or coverage around
# that flow, may speak to it through variables that it would not find in a shell.
NOT_FOR_TESTS = ("PREFECT_", "ZK0_", "COVERAGE_", "COV_CORE_", "PYTEST_CURRENT_TEST")


def suite_command(expression: str, junit: Path, paths: Sequence[str] = (), further: bool = False) -> list[str]:
    """The arguments for Python that call pytest for one suite.

    Coverage is measured and not judged: that is a step of its own.

    Args:
        expression: Of markers: which tests.
        junit: Where the results go.
        paths: Files or folders of tests; those that pyproject.toml names by default.
        further: Add to the coverage that was measured before.

    Raises:
        TestingError: pytest or a plugin is not installed.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise TestingError(f"{', '.join(missing)} not found; the tests need the extra `dev`: `make install`")
    command = ["-m", "pytest", "-q", "-m", expression, f"--junitxml={junit}"]
    if not paths:  # a part is done sooner in one process; services are mostly waited for
        command += ["-n", "4" if expression == MARKER else "logical"]
    command += ["--cov", "--cov-report=", "--cov-fail-under=0", *(["--cov-append"] if further else [])]
    return [*command, *paths]


def read_suite(path: Path) -> Suite:
    """Read a JUnit XML file as pytest writes it.

    Raises:
        TestingError: It is missing, or is not such a file: pytest did not get to its end.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise TestingError(f"{path} is missing: pytest ended before it wrote its results") from error
    except ElementTree.ParseError as error:
        raise TestingError(f"{path} is not XML ({error}): pytest was stopped while it wrote its results") from error
    suite = root if root.tag == "testsuite" else root.find("testsuite")
    if suite is None:
        raise TestingError(f"{path} holds <{root.tag}>, expected JUnit's <testsuites>; let pytest write it")
    cases = sorted(map(_case, suite.iter("testcase")), key=lambda case: case.name)  # as they ended, by several workers
    return Suite(
        passed=sum(case.outcome == "passed" for case in cases),
        seconds=float(suite.get("time", 0)),
        failures=tuple(case for case in cases if case.outcome in ("failed", "error")),
        skips=tuple(case for case in cases if case.outcome == "skipped"),
        slowest=tuple(sorted(cases, key=lambda case: -case.seconds)[:_SLOWEST]),
    )


def _case(element: ElementTree.Element) -> Case:
    name = "::".join(part for part in (element.get("classname"), element.get("name")) if part)
    seconds = float(element.get("time", 0))
    outcomes: dict[str, Literal["failed", "error", "skipped"]] = {
        "failure": "failed",
        "error": "error",
        "skipped": "skipped",
    }
    for child in element:
        if outcome := outcomes.get(child.tag):
            # Of a skipped test the text is only where it stands.
            lines = "" if outcome == "skipped" else last_lines(child.text or "")
            message = (child.get("message") or "").strip().splitlines() or [""]
            return Case(name=name, outcome=outcome, seconds=seconds, message=message[0], lines=lines)
    return Case(name=name, outcome="passed", seconds=seconds)


def judge_suite(suite: Suite, status: int, ended: str) -> str | None:
    """What a suite came to, in a sentence; None where pytest looked and found no test.

    Args:
        suite: What pytest wrote.
        status: What its call ended with.
        ended: Its last lines.

    Raises:
        TestingError: A test failed, or pytest itself did.
    """
    if suite.failures:
        tests = "\n".join(f"{case.name}: {case.message}" for case in suite.failures[:_SLOWEST])
        more = len(suite.failures) - _SLOWEST
        raise TestingError(f"{suite.summary}\n{tests}" + (f"\nand {more} more" if more > 0 else ""))
    if status == _NO_TEST:
        return None
    if status:
        raise TestingError(f"pytest failed, though no test did ({suite.summary})\n{ended}")
    return suite.summary
