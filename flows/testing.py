"""Is the project sound? Tests, a simulated federation, benchmarks, coverage, and a report of them all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed

from tasks import testing as steps
from tasks.steps import WayOn, by_hand, leaves_context, run_name
from zk0.context import StageOutcome
from zk0.testing.records import TestingError

_way = WayOn("The tests", "What was tested is in `results/testing.html` as far as it came. Run this deployment again.")


@flow(name="testing", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
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
    root = Path.cwd()
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    tested = steps.Tested(root, tests or [], benchmarks or [])
    with leaves_context(root, "testing", priority) as outcomes:
        steps.begin(root)
        results = []
        for step in (
            steps.unit_tests,
            steps.integration_tests,
            steps.federated_simulation,
            steps.performance_benchmark,
            steps.coverage_analysis,
        ):
            result = steps.attempt(step, tested)
            results.append(result)
            state: Literal["Failed", "Completed"] = "Failed" if result.status == "failed" else "Completed"
            outcomes.append(StageOutcome(result.name, state, result.seconds))
        validation = steps.validation_report(root, created, results)
        if validation.failed:
            raise TestingError(f"{validation.headline}; see results/testing.html")
    return Completed(message=validation.headline)


if __name__ == "__main__":
    by_hand(testing)
