"""Flower's FedAvg as a server alone: its peak memory while a stand-in for the network hands it replies."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from benchmarks.peers.flower_ray import arrays_of
from benchmarks.sizes import shapes_of

_SMALL = 10_000


def server_peak(*, sites: int, values: int, rounds: int) -> dict[str, Any]:
    """Peak memory of FedAvg's process, as for ours.

    Args:
        sites: Nodes.
        values: Parameters of the model, fp32.
        rounds: Rounds to run.
    """
    from zk0.measuring.timing import peak_bytes, reset_peak, resident_bytes

    _serve(sites, _SMALL, rounds)  # what libraries load when first used is no part of the model's cost
    reset_peak()
    baseline = resident_bytes()
    _serve(sites, values, rounds)
    return {"baseline_bytes": baseline, "peak_bytes": peak_bytes(), "trainable_bytes": values * 4}


def _serve(sites: int, values: int, rounds: int) -> None:
    from zk0.federation.inprocess import LocalGrid

    rng = np.random.default_rng(1)

    def answer(message: Message) -> Message:
        update = {n: Array(rng.standard_normal(s, dtype=np.float32)) for n, s in shapes_of(values).items()}
        content = RecordDict({"arrays": ArrayRecord(update), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    strategy.start(LocalGrid(sites, answer), initial_arrays=arrays_of(values), num_rounds=rounds)
