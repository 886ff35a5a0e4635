"""What pytest's JUnit XML and coverage.py's JSON say, and with all else that was tested, as one record and one page."""

from __future__ import annotations

import importlib.util
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from zk0 import __version__
from zk0.files import read_json, write_text
from zk0.machine import machine
from zk0.machine.packages import installed, versions
from zk0.machine.repository import revision
from zk0.measuring.history import QUICK
from zk0.measuring.rows import Row, read_report
from zk0.records.base import Machine
from zk0.reporting.pages import environment, verbatim
from zk0.testing.records import (
    BENCHMARK,
    FOLDER,
    INTEGRATION,
    PAGE,
    RECORD,
    SIMULATION,
    SIMULATION_RESULT,
    UNIT,
    Case,
    Coverage,
    Covered,
    Simulation,
    StepResult,
    Suite,
    TestingError,
    Validation,
    last_lines,
    read_record,
    write_record,
)

JUNIT = {UNIT: FOLDER / "unit.xml", INTEGRATION: FOLDER / "integration.xml"}
COVERAGE_JSON = FOLDER / "coverage.json"
SIMULATION_FOLDER = FOLDER / SIMULATION.replace(" ", "-")
_TEST_TOOLS = ("pytest", "pytest-cov", "coverage")

MARKER = "services"
_SLOWEST = 10
_NO_TEST = 5  # pytest.ExitCode.NO_TESTS_COLLECTED
GATE = 0.8
_LEAST = 15
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


def read_gate(root: Path) -> float:
    """The share that ``make test`` asks for too: ``fail_under`` in pyproject.toml, or 80%."""
    file = root / "pyproject.toml"
    content = tomllib.loads(file.read_text()) if file.is_file() else {}
    percent = content.get("tool", {}).get("coverage", {}).get("report", {}).get("fail_under")
    return GATE if percent is None else float(percent) / 100


def read_coverage(path: Path, gate: float) -> Coverage:
    """Sum up modules by package, the folder at the top of their path.

    Args:
        path: What ``coverage json`` wrote.
        gate: Least share, for the total and for every package.

    Raises:
        TestingError: It is missing, is no coverage report, or measured nothing.
    """
    try:
        files = read_json(path)["files"]
        modules = [
            Covered(name=name, lines=file["summary"]["num_statements"], covered=file["summary"]["covered_lines"])
            for name, file in files.items()
        ]
    except FileNotFoundError as error:
        raise TestingError(f"{path} is missing: no coverage was measured; see the unit tests") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TestingError(f"{path} is not what `coverage json` writes: {error!r}") from error
    if not any(module.lines for module in modules):
        raise TestingError(
            f"{path} covers no line: [tool.coverage.run] source in pyproject.toml names nothing that ran"
        )
    grouped: dict[str, list[Covered]] = defaultdict(list)
    for module in modules:
        grouped[_package(module.name)].append(module)
    least = sorted((m for m in modules if m.covered < m.lines), key=lambda m: (m.share, -m.lines, m.name))
    return Coverage(
        gate=gate,
        total=_sum("total", modules),
        packages=tuple(_sum(name, parts) for name, parts in sorted(grouped.items())),
        least=tuple(least[:_LEAST]),
    )


def _package(module: str) -> str:
    path = Path(module)
    # A module outside the project has an absolute path, whose top says nothing.
    return path.parent.name if path.is_absolute() else path.parts[0]


def _sum(name: str, parts: list[Covered]) -> Covered:
    return Covered(name=name, lines=sum(p.lines for p in parts), covered=sum(p.covered for p in parts))


def judge_coverage(coverage: Coverage) -> str:
    """Coverage in a sentence.

    Raises:
        TestingError: The total or a package is below the gate; names the least covered modules.
    """
    parts = ", ".join(f"{part.name} {part.share:.1%}" for part in (coverage.total, *coverage.packages))
    if coverage.below:
        names = ", ".join(part.name for part in coverage.below)
        least = "\n".join(f"{module.name} {module.share:.1%}" for module in coverage.least)
        raise TestingError(f"below the gate of {coverage.gate:.0%}: {names} ({parts}); least covered:\n{least}")
    return parts


def collect(root: Path, created: str, steps: Sequence[StepResult]) -> Validation:
    """Everything that the steps left below the root.

    A step that failed may have left nothing, or half of something: then only its own words count.

    Args:
        root: Project folder.
        created: When the workflow began, ISO 8601.
        steps: All of them, in order.
    """
    suites = {name: _left(partial(read_suite, root / path)) for name, path in JUNIT.items()}
    tools = {name: version for name in _TEST_TOOLS if (version := installed(name))}
    return Validation(
        created=created,
        steps=tuple(steps),
        suites={name: suite for name, suite in suites.items() if suite is not None},
        coverage=_left(lambda: read_coverage(root / COVERAGE_JSON, read_gate(root))),
        simulation=_left(lambda: read_record(root / SIMULATION_FOLDER / SIMULATION_RESULT, Simulation)),
        benchmarks=_benchmarks(root, steps),
        machine=Machine.model_validate(machine()),
        packages={"zk0": __version__, **versions(), **tools},
        revision=revision(root).told,
    )


def write_validation(root: Path, validation: Validation) -> Path:
    """Write ``results/testing.json`` and the page beside it.

    Returns:
        The page.
    """
    write_record(root / RECORD, validation)
    write_text(root / PAGE, render(validation))
    return root / PAGE


def render(validation: Validation) -> str:
    """The page as HTML: it opens without a network, and runs nothing."""
    page = environment().get_template("validation.html.j2")
    return page.render(validation=validation, styles=verbatim("styles.css"), record=RECORD.as_posix())


def _left[R](read: Callable[[], R]) -> R | None:
    """What a step left, or None: the step that left nothing, or half of it, has said so itself."""
    try:
        return read()
    except TestingError:
        return None


def _benchmarks(root: Path, steps: Sequence[StepResult]) -> tuple[Row, ...]:
    # The file is shared with `make bench-quick`: it is of this run only if the step got to its end.
    measured = any(step.name == BENCHMARK and step.status in ("passed", "warning") for step in steps)
    return read_report(root / QUICK).rows if measured else ()
