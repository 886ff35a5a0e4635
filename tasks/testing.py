"""The steps of the testing workflow: each leaves its results in files, and raises where it failed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks.benchmark import compare_benchmarks, measure_beside_peers
from tasks.commands import CommandFailed, stream
from zk0.errors import StageError
from zk0.params import load_params
from zk0.steps import Outcome, Step, step
from zk0.testing.records import (
    BENCHMARK,
    COVERAGE,
    FOLDER,
    INTEGRATION,
    SIMULATION,
    SIMULATION_RESULT,
    UNIT,
    Simulation,
    Status,
    StepResult,
    TestingError,
    Validation,
    last_lines,
    read_record,
)
from zk0.testing.reports import (
    COVERAGE_JSON,
    JUNIT,
    MARKER,
    NOT_FOR_TESTS,
    SIMULATION_FOLDER,
    collect,
    judge_coverage,
    judge_suite,
    read_coverage,
    read_gate,
    read_suite,
    suite_command,
    write_validation,
)
from zk0.words import markdown_table

_STATE_NAMES: dict[Status, str] = {"passed": "Completed", "warning": "Regressed", "nothing": "NothingToRun"}


@dataclass(frozen=True)
class Tested:
    """What is tested.

    Attributes:
        root: Project folder.
        tests: Files or folders of tests; those that pyproject.toml names by default.
        benchmarks: Some of the quick benchmarks; all by default.
    """

    root: Path
    tests: Sequence[str] = ()
    benchmarks: Sequence[str] = ()


def begin(root: Path) -> None:
    """Remove what an earlier run left: none of it may be taken for this one's."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    (root / FOLDER).mkdir(parents=True)


def attempt(step: Step[[Tested], Outcome], tested: Tested) -> StepResult:
    """Run a step as a task; one that fails does not keep the others from running."""

    @task(name=step.name, description=step.about, cache_policy=NO_CACHE)
    def attempted() -> State[StepResult]:
        outcome = step(tested)
        status: Status = "warning" if outcome.warnings else "passed" if outcome.changed else "nothing"
        (summary,) = outcome.told
        if status == "nothing":
            get_run_logger().warning(summary)
        result = StepResult(name=step.name, status=status, summary=summary, problem="\n".join(outcome.warnings))
        return Completed(name=_STATE_NAMES[status], message=summary, data=result)

    began = time.monotonic()
    state = attempted(return_state=True)
    result = state.result(raise_on_failure=False)
    seconds = time.monotonic() - began
    if isinstance(result, StepResult):
        return result.model_copy(update={"seconds": seconds})
    text = str(result) if isinstance(result, StageError) else f"{type(result).__name__}: {result}"
    summary, _, problem = text.partition("\n")
    summary = summary.removesuffix(":")
    return StepResult(
        name=step.name, status="failed", summary=summary, problem=last_lines(problem) or summary, seconds=seconds
    )


@step(UNIT)
def unit_tests(tested: Tested) -> Outcome:
    """Run the tests that need no service, with coverage.

    Raises:
        TestingError: One failed, or there is none.
    """
    summary = _run_suite(tested, UNIT, f"not {MARKER}", further=False)
    if summary is None:
        where = ", ".join(tested.tests) or "the test folders of pyproject.toml"
        raise TestingError(f"no unit test was found in {where}")
    return Outcome(True, (summary,))


@step(INTEGRATION)
def integration_tests(tested: Tested) -> Outcome:
    """Run the tests with real services on loopback, and add to the coverage.

    Raises:
        TestingError: One failed.
    """
    summary = _run_suite(tested, INTEGRATION, MARKER, further=True)
    if summary is None:
        return Outcome(False, (f"no test is marked `{MARKER}`: client and server were not tested together",))
    return Outcome(True, (summary,))


def _run_suite(tested: Tested, name: str, expression: str, further: bool) -> str | None:
    """Run one suite; None where pytest found no test."""
    report = tested.root / JUNIT[name]
    status, ended = 0, ""
    try:
        stream(
            f"{name} failed",
            suite_command(expression, report, tested.tests, further),
            tested.root,
            environment=_coverage_file(tested.root),
            without=NOT_FOR_TESTS,
        )
    except CommandFailed as error:
        status, ended = error.status, error.last_lines
    try:
        suite = read_suite(report)
    except TestingError as error:
        raise TestingError(f"{error}\n{ended}") from error
    return judge_suite(suite, status, ended)


def _coverage_file(root: Path) -> dict[str, str]:
    """Beside a developer's own, which stays as it is."""
    return {"COVERAGE_FILE": str(root / FOLDER / ".coverage")}


@step(SIMULATION)
def federated_simulation(tested: Tested) -> Outcome:
    """Federate several sites in process on small params, in a process of its own, and judge what it gives.

    Raises:
        StageError: It failed, or gave something else than it must.
    """
    folder = tested.root / SIMULATION_FOLDER
    command = ["-m", "zk0", "simulate", "--folder", str(folder)]
    stream("the simulation failed", command, tested.root, without=("ZK0_",))
    found = read_record(folder / SIMULATION_RESULT, Simulation)
    first, last = found.rounds[0].held_out_loss, found.rounds[-1].held_out_loss
    told = f"{len(found.sites)} sites, {found.rounds[-1].round} rounds, held-out loss {first:.3f} to {last:.3f}"
    return Outcome(True, (told,))


@step(BENCHMARK)
def performance_benchmark(tested: Tested) -> Outcome:
    """Run the quick benchmarks beside peers, and compare them with earlier ones on this machine.

    A figure that is worse than before is told and does not fail the step, as in the benchmark flow.

    Raises:
        StageError: They are not installed, or one of them failed.
    """
    measure_beside_peers(tested.root, tuple(tested.benchmarks))
    worse = compare_benchmarks(tested.root)
    told = f"{len(worse)} figures are worse than before" if worse else "measured; nothing is worse than before"
    return Outcome(True, (told,), tuple(worse))


@step(COVERAGE)
def coverage_analysis(tested: Tested) -> Outcome:
    """Hold the coverage of both suites against the gate in pyproject.toml, in total and by package.

    Raises:
        StageError: It is below the gate, or was not measured.
    """
    root = tested.root
    path = root / COVERAGE_JSON
    command = ["-m", "coverage", "json", "-q", "-o", str(path), "--fail-under=0"]
    what = "no coverage to analyse: see the unit tests"
    stream(what, command, root, environment=_coverage_file(root), without=NOT_FOR_TESTS)
    return Outcome(True, (judge_coverage(read_coverage(path, read_gate(root))),))


# The tracking database may be busy or, when it is a server, away.
@task(name="validation report", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def validation_report(root: Path, created: str, steps: Sequence[StepResult]) -> Validation:
    """Write results/testing.html and show it here and in MLflow."""
    from zk0.testing.track import experiment_name, track_validation

    validation = collect(root, created, steps)
    page = write_validation(root, validation)
    create_markdown_artifact(
        key="validation", markdown=validation_markdown(validation, page), description=validation.headline
    )
    experiment = load_params(root / "params.yaml").tracking.experiment
    run = track_validation(root, experiment, validation)
    get_run_logger().info("%s; MLflow experiment %s, run %s", page, experiment_name(experiment), run)
    return validation


def validation_markdown(validation: Validation, page: Path) -> str:
    """The steps as a table, then what failed with its last lines."""
    lines = [f"**{validation.headline}**", "", f"[{page.name}]({page.as_uri()})", ""]
    rows = [(one.name, one.status, one.summary, f"{one.seconds:.0f}") for one in validation.steps]
    lines.append(markdown_table(("step", "result", "what it came to", "seconds"), rows, figures=[3]))
    for one in validation.steps:
        if one.problem:
            lines += ["", f"**{one.name}**", "", "```", one.problem, "```"]
    return "\n".join(lines)
