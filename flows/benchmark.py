"""Measure this machine anew, whatever DVC thinks, and say what has become slower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed

from tasks.benchmark import compare_benchmarks, measure_beside_peers
from tasks.federate import steps_of
from tasks.steps import WayOn, by_hand, leaves_context, run_name
from zk0.pipeline.stages import BENCHMARK

_way = WayOn("The benchmark", "What was measured is kept. Run this deployment again.")


@flow(name="benchmark", flow_run_name=run_name, on_failure=[_way.show], on_crashed=[_way.show])
@_way.after_a_stop
def benchmark(peers: bool = True) -> Any:
    """Run the benchmark stage on the present global model, then the quick benchmarks beside peers.

    The quick ones go into MLflow and are compared with earlier runs on this machine. Figures that are
    worse by more than ``benchmark.margin`` are a warning in the log, the artifact and MLflow, and the
    run ends as ``Regressed``: completed, because all was measured, under a name that stands out.

    Args:
        peers: Also run the quick benchmarks, which take minutes and need the extra ``bench``.
    """
    root = Path.cwd()
    with leaves_context(root, "benchmark", "Low") as outcomes:
        steps_of(root, outcomes, {}, force=True).run(BENCHMARK)
        if not peers:
            return Completed(message="measured")
        measure_beside_peers(root)
        worse = compare_benchmarks(root)
    if worse:
        get_run_logger().warning("%d figures are worse than before", len(worse))
        return Completed(name="Regressed", message="; ".join(worse))
    return Completed(message="measured; nothing is worse than before")


if __name__ == "__main__":
    by_hand(benchmark)
