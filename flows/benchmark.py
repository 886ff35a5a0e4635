"""Measure this machine anew, whatever DVC thinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from tasks import stages
from tasks.run_context import leaves_context


@flow(name="benchmark")
def benchmark() -> Any:
    """Run the benchmark stage on the present global model and show its figures."""
    root = Path.cwd()
    with leaves_context(root, "benchmark", "manual", "Low") as steps:
        steps.run("benchmark", "benchmark", lambda: stages.benchmark(root, {}, force=True, return_state=True))
    return Completed(message="measured")


if __name__ == "__main__":
    benchmark()
