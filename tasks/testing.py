"""The steps of the testing workflow: each leaves its results in files, and raises where it failed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks.benchmark import compare_benchmarks, measure_beside_peers
from tasks.steps import CommandFailed, stream
from zk0.params import load_params
from zk0.testing.coverage import judge_coverage, read_coverage, read_gate
from zk0.testing.page import COVERAGE_JSON, JUNIT, SIMULATION_FOLDER, collect, write_validation
from zk0.testing.records import (
    BENCHMARK,
    COVERAGE,
    FOLDER,
    INTEGRATION,
    SIMULATION,
    UNIT,
    Simulation,
    Status,
    Step,
    TestingError,
    Validation,
    last_lines,
    read_record,
)
from zk0.testing.simulation import RESULT
from zk0.testing.suites import MARKER, NOT_FOR_TESTS, judge_suite, read_suite, suite_command

_STATE_NAMES = {"passed": "Completed", "warning": "Regressed", "nothing": "NothingToRun"}


def begin(root: Path) -> None:
    """Remove what an earlier run left: none of it may be taken for this one's."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    (root / FOLDER).mkdir(parents=True)


def attempt(name: str, call: Callable[[], State[Any]]) -> Step:
    """Run a step; one that fails does not keep the others from running.

    Args:
        name: The step's.
        call: Runs its task with ``return_state=True``.
    """
    began = time.monotonic()
    state = call()
    result = state.result(raise_on_failure=False)
    seconds = time.monotonic() - began
    if state.is_completed() and isinstance(result, Step):
        return result.model_copy(update={"seconds": seconds})
    known = isinstance(result, TestingError)
    text = str(result) if known else f"{type(result).__name__}: {result}"
    summary, _, problem = text.partition("\n")
    return Step(name=name, status="failed", summary=summary, problem=last_lines(problem) or summary, seconds=seconds)


def _good(name: str, summary: str, status: Status = "passed", problem: str = "") -> State[Step]:
    step = Step(name=name, status=status, summary=summary, problem=problem)
    return Completed(name=_STATE_NAMES[status], message=summary, data=step)


@task(name=UNIT, cache_policy=NO_CACHE)
def unit_tests(root: Path, paths: Sequence[str] = ()) -> State[Step]:
    """Run the tests that need no service, with coverage.

    Raises:
        TestingError: One failed, or there is none.
    """
    summary = _run_suite(root, UNIT, f"not {MARKER}", paths, further=False)
    if summary is None:
        raise TestingError(f"no unit test was found in {', '.join(paths) or 'the test folders of pyproject.toml'}")
    return _good(UNIT, summary)


@task(name=INTEGRATION, cache_policy=NO_CACHE)
def integration_tests(root: Path, paths: Sequence[str] = ()) -> State[Step]:
    """Run the tests with real services on loopback, and add to the coverage.

    Raises:
        TestingError: One failed.
    """
    summary = _run_suite(root, INTEGRATION, MARKER, paths, further=True)
    if summary is None:
        told = f"no test is marked `{MARKER}`: client and server were not tested together"
        get_run_logger().warning(told)
        return _good(INTEGRATION, told, "nothing")
    return _good(INTEGRATION, summary)


def _run_suite(root: Path, name: str, expression: str, paths: Sequence[str], further: bool) -> str | None:
    """Run one suite; None where pytest found no test."""
    command = suite_command(expression, root / JUNIT[name], paths, further)
    status, ended = 0, ""
    try:
        stream(command, root, environment=_coverage_file(root), without=NOT_FOR_TESTS)
    except CommandFailed as error:
        status, ended = error.status, str(error)
    try:
        suite = read_suite(root / JUNIT[name])
    except TestingError as error:
        raise TestingError(f"{error}\n{ended}") from error
    return judge_suite(suite, status, ended)


def _coverage_file(root: Path) -> dict[str, str]:
    """Beside a developer's own, which stays as it is."""
    return {"COVERAGE_FILE": str(root / FOLDER / ".coverage")}


@task(name=SIMULATION, cache_policy=NO_CACHE)
def federated_simulation(root: Path) -> State[Step]:
    """Federate several sites in process on small params, in a process of its own, and judge what it gives.

    Raises:
        TestingError: It failed, or gave something else than it must.
    """
    folder = root / SIMULATION_FOLDER
    command = [sys.executable, "-m", "zk0", "simulate", "--folder", str(folder)]
    try:
        stream(command, root, without=("ZK0_",))
    except CommandFailed as error:
        raise TestingError(f"the simulation failed\n{error}") from error
    found = read_record(folder / RESULT, Simulation)
    first, last = found.rounds[0].held_out_loss, found.rounds[-1].held_out_loss
    told = f"{len(found.sites)} sites, {found.rounds[-1].round} rounds, held-out loss {first:.3f} to {last:.3f}"
    return _good(SIMULATION, told)


@task(name=BENCHMARK, cache_policy=NO_CACHE)
def performance_benchmark(root: Path, only: Sequence[str] = ()) -> State[Step]:
    """Run the quick benchmarks beside peers, and compare them with earlier ones on this machine.

    A figure that is worse than before is told and does not fail the step, as in the benchmark flow.

    Raises:
        StageError: They are not installed, or one of them failed.
    """
    measure_beside_peers(root, tuple(only))
    worse = compare_benchmarks(root)
    if worse:
        return _good(BENCHMARK, f"{len(worse)} figures are worse than before", "warning", "\n".join(worse))
    return _good(BENCHMARK, "measured; nothing is worse than before")


@task(name=COVERAGE, cache_policy=NO_CACHE)
def coverage_analysis(root: Path) -> State[Step]:
    """Hold the coverage of both suites against the gate in pyproject.toml, in total and by package.

    Raises:
        TestingError: It is below the gate, or was not measured.
    """
    path = root / COVERAGE_JSON
    command = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(path), "--fail-under=0"]
    try:
        stream(command, root, environment=_coverage_file(root), without=NOT_FOR_TESTS)
    except CommandFailed as error:
        raise TestingError(f"no coverage to analyse: see the unit tests\n{error}") from error
    return _good(COVERAGE, judge_coverage(read_coverage(path, read_gate(root))))


# The tracking database may be busy or, when it is a server, away.
@task(name="validation report", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def validation_report(root: Path, created: str, steps: Sequence[Step]) -> Validation:
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
    lines += ["| step | result | what it came to | seconds |", "| --- | --- | --- | --: |"]
    lines += [f"| {s.name} | {s.status} | {s.summary.replace('|', '/')} | {s.seconds:.0f} |" for s in validation.steps]
    for step in validation.steps:
        if step.problem:
            lines += ["", f"**{step.name}**", "", "```", step.problem, "```"]
    return "\n".join(lines)
