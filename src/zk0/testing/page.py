"""All results of the testing workflow, collected from its files, as one record and one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from zk0 import __version__
from zk0.environment import machine, versions
from zk0.files import write_text
from zk0.machine.packages import installed
from zk0.machine.repository import revision
from zk0.measuring.history import QUICK
from zk0.measuring.rows import Row, read_report
from zk0.records.base import Machine
from zk0.reporting.pages import environment, verbatim
from zk0.testing.coverage import read_coverage, read_gate
from zk0.testing.records import (
    BENCHMARK,
    FOLDER,
    INTEGRATION,
    PAGE,
    RECORD,
    SIMULATION,
    UNIT,
    Simulation,
    Step,
    TestingError,
    Validation,
    read_record,
    write_record,
)
from zk0.testing.simulation import RESULT
from zk0.testing.suites import read_suite

JUNIT = {UNIT: FOLDER / "unit.xml", INTEGRATION: FOLDER / "integration.xml"}
COVERAGE_JSON = FOLDER / "coverage.json"
SIMULATION_FOLDER = FOLDER / SIMULATION.replace(" ", "-")
_TEST_TOOLS = ("pytest", "pytest-cov", "coverage")


def collect(root: Path, created: str, steps: Sequence[Step]) -> Validation:
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
        simulation=_left(lambda: read_record(root / SIMULATION_FOLDER / RESULT, Simulation)),
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


def _benchmarks(root: Path, steps: Sequence[Step]) -> tuple[Row, ...]:
    # The file is shared with `make bench-quick`: it is of this run only if the step got to its end.
    measured = any(step.name == BENCHMARK and step.status in ("passed", "warning") for step in steps)
    return read_report(root / QUICK).rows if measured else ()
