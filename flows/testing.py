"""Is the project sound? Tests, a simulated federation, benchmarks, coverage, and a report of them all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.context import leaves_context
from tasks.testing import (
    attempt,
    begin,
    coverage_analysis,
    federated_simulation,
    integration_tests,
    performance_benchmark,
    unit_tests,
    validation_report,
)
from zk0.context import StageOutcome
from zk0.testing.records import BENCHMARK, COVERAGE, INTEGRATION, SIMULATION, UNIT, TestingError


@flow(name="testing")
def testing(
    tests: list[str] | None = None,
    benchmarks: list[str] | None = None,
    priority: Literal["High", "Medium", "Low"] = "Medium",
) -> Any:
    """Run every step, whatever becomes of the others; then write the report, and fail if one of them failed.

    Args:
        tests: Files or folders of tests; those that pyproject.toml names by default.
        benchmarks: Some of the quick benchmarks; all by default, which take minutes and need the extra ``bench``.
        priority: For the task context.

    Raises:
        TestingError: A step failed; results/testing.html shows its last lines.
    """
    root, paths = Path.cwd(), tests or []
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    calls: dict[str, Callable[[], State[Any]]] = {
        UNIT: lambda: unit_tests(root, paths, return_state=True),
        INTEGRATION: lambda: integration_tests(root, paths, return_state=True),
        SIMULATION: lambda: federated_simulation(root, return_state=True),
        BENCHMARK: lambda: performance_benchmark(root, benchmarks or [], return_state=True),
        COVERAGE: lambda: coverage_analysis(root, return_state=True),
    }
    with leaves_context(root, "testing", "scheduled" if runtime.deployment.id else "manual", priority) as context:
        begin(root)
        steps = []
        for name, call in calls.items():
            step = attempt(name, call)
            steps.append(step)
            state: Literal["Failed", "Completed"] = "Failed" if step.status == "failed" else "Completed"
            context.outcomes.append(StageOutcome(name, state, step.seconds))
        validation = validation_report(root, created, steps)
        if validation.failed:
            raise TestingError(f"{validation.headline}; see results/testing.html")
    return Completed(message=validation.headline)


if __name__ == "__main__":
    testing()
