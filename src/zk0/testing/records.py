"""What the testing workflow found: one record a step, and one file for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.measuring.rows import Row
from zk0.records.base import Machine
from zk0.settings import Section
from zk0.words import fault

FOLDER = Path("state/testing")
RECORD = Path("results/testing.json")
PAGE = RECORD.with_suffix(".html")
SIMULATION_RESULT = Path("simulation.json")  # in the simulation's folder
LAST_LINES = 15

UNIT, INTEGRATION = "unit tests", "integration tests"
SIMULATION, BENCHMARK = "federated simulation", "performance benchmark"
COVERAGE = "coverage analysis"

Status = Literal["passed", "warning", "nothing", "failed"]


class TestingError(StageError):
    """A step of the testing workflow failed: a first line that says what, then the last lines that show why."""

    __test__ = False  # pytest would take it for a test


class StepResult(Section):
    """How one step ended.

    Attributes:
        name: As the workflow names it.
        status: ``nothing`` = there was nothing to run, which is no failure; ``warning`` = all was done, and
            something in it is worse than before.
        summary: One sentence.
        problem: The last lines of what went wrong; empty where nothing did.
        seconds: How long it took.
    """

    name: str
    status: Status
    summary: str
    problem: str = ""
    seconds: float = 0.0


class Case(Section):
    """One test.

    Attributes:
        name: Module and test, as in ``tests.test_files::test_write``.
        outcome: ``error`` = not the test but what it needs failed.
        seconds: With its fixtures.
        message: Why it failed, or was skipped; one line.
        lines: The last lines of its failure.
    """

    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    seconds: float
    message: str = ""
    lines: str = ""


class Suite(Section):
    """What one call of pytest came to.

    Attributes:
        passed: How many tests passed.
        seconds: Of the whole call.
        failures: Tests that failed, and those whose fixtures or modules did.
        skips: Tests that were skipped, or failed as they were expected to.
        slowest: The tests that took longest, longest first.
    """

    passed: int
    seconds: float
    failures: tuple[Case, ...]
    skips: tuple[Case, ...]
    slowest: tuple[Case, ...]

    @property
    def summary(self) -> str:
        """Counts in words.

        >>> Suite(passed=3, seconds=1.0, failures=(), skips=(), slowest=()).summary
        '3 passed, 0 failed, 0 skipped'
        """
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"


class Covered(Section):
    """How much of a module or package the tests ran: lines that can run, and those of them that did."""

    name: str
    lines: int
    covered: int

    @property
    def share(self) -> float:
        """Covered lines of all lines; 1 where there are none."""
        return self.covered / self.lines if self.lines else 1.0


class Coverage(Section):
    """Coverage against its gate.

    Attributes:
        gate: Least share that the total and every package must reach.
        packages: Top folders: src, flows, tasks.
        least: The least covered modules, least first.
    """

    gate: float
    total: Covered
    packages: tuple[Covered, ...]
    least: tuple[Covered, ...]

    @property
    def below(self) -> tuple[Covered, ...]:
        """Total and packages that do not reach the gate."""
        return tuple(part for part in (self.total, *self.packages) if part.share < self.gate)


class Finding(Section):
    """One thing that a simulation must give, and what it gave."""

    name: str
    passed: bool
    found: str
    expected: str


class SimulatedRound(Section):
    """One round of the simulation; round 0 is the starting model, which nothing trained."""

    round: int
    held_out_loss: float
    train_loss: float | None
    sites: tuple[str, ...]
    seconds: float | None


class Simulation(Section):
    """A federation of several sites on small params, and whether it gave what it must."""

    sites: tuple[str, ...]
    findings: tuple[Finding, ...]
    rounds: tuple[SimulatedRound, ...]
    seconds: float


class Validation(Section):
    """All of it. A part is None where its step left no result.

    Attributes:
        created: When the workflow began, ISO 8601.
        suites: By the step that ran them.
        machine: As :func:`zk0.machine.machine` gives it.
        packages: Versions of the packages that decide a run's numbers.
        revision: Git's, and whether something was not committed; None outside a repository.
    """

    created: str
    steps: tuple[StepResult, ...]
    suites: dict[str, Suite]
    coverage: Coverage | None
    simulation: Simulation | None
    benchmarks: tuple[Row, ...]
    machine: Machine
    packages: dict[str, str]
    revision: str | None

    @property
    def failed(self) -> tuple[StepResult, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.status == "failed")

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        if self.failed:
            return f"{len(self.failed)} of {len(self.steps)} steps failed: {', '.join(s.name for s in self.failed)}"
        empty = [step.name for step in self.steps if step.status == "nothing"]
        return f"All {len(self.steps)} steps passed" + (f"; nothing to run in {', '.join(empty)}" if empty else "")


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as JSON."""
    write_json(path, record.model_dump(mode="json"))


def read_record[R: BaseModel](path: Path, kind: type[R]) -> R:
    """Read what :func:`write_record` wrote.

    Raises:
        TestingError: The file is missing or is not such a record; says how it is made.
    """
    again = "run the testing workflow: `python -m flows.testing`"
    try:
        return kind.model_validate(read_json(path))
    except FileNotFoundError as error:
        raise TestingError(f"{path} is missing; {again}") from error
    except ValidationError as error:
        raise TestingError(f"{path}: {fault(error)}; {again}") from error
    except ValueError as error:
        raise TestingError(f"{error}; {again}") from error


def last_lines(text: str, most: int = LAST_LINES) -> str:
    """The end of a text, where a failure says what it was."""
    return "\n".join(text.rstrip().splitlines()[-most:])
