"""Flower's own simulation: ``run_simulation`` on Ray with its FedAvg, and clients that return what they got."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.sizes import shapes_of

client_app = ClientApp()


@client_app.train()
def _train(message: Message, context: Context) -> Message:
    """The no-op: the arrays as they came, and the weight that FedAvg asks for."""
    (arrays,) = message.content.array_records.values()
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that notes when each round's messages were made and when its replies were averaged."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.times: list[tuple[float, float]] = []
        self.replies: list[int] = []

    def configure_train(self, server_round: int, *arguments: Any, **named: Any) -> Iterable[Message]:
        self._began = time.perf_counter()
        return super().configure_train(server_round, *arguments, **named)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        kept = list(replies)
        self.replies.append(sum(not message.has_error() for message in kept))
        averaged = super().aggregate_train(server_round, kept)
        self.times.append((self._began, time.perf_counter()))
        return averaged


def arrays_of(values: int) -> ArrayRecord:
    """A model of about ``values`` fp32 parameters in SmolVLA's trainable shapes."""
    rng = np.random.default_rng(0)
    return ArrayRecord(
        {name: Array(rng.standard_normal(shape, dtype=np.float32)) for name, shape in shapes_of(values).items()}
    )


def simulation_rounds(*, sites: int, values: int, rounds: int) -> dict[str, Any]:
    """Run rounds and time them.

    Args:
        sites: Virtual SuperNodes.
        values: Parameters of the model, fp32.
        rounds: Rounds after the first, which starts Ray's workers and counts as start-up.

    Returns:
        ``start_s`` from the call to the end of the first round, less an ordinary round; ``round_s`` of
        the others; ``peak_bytes`` of the server's process, and the ``baseline_bytes`` it began with;
        ``replies`` that each round averaged.
    """
    from statistics import median

    from flwr.simulation import run_simulation

    from zk0.measuring.timing import peak_bytes, resident_bytes

    strategy = TimedFedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy.start(grid, initial_arrays=arrays_of(values), num_rounds=1 + rounds)

    baseline, began = resident_bytes(), time.perf_counter()
    run_simulation(
        server_app,
        client_app,
        num_supernodes=sites,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    seconds = [after - before for before, after in strategy.times]
    usual = median(seconds[1:])
    return {
        "start_s": strategy.times[0][1] - began - usual,
        "round_s": seconds[1:],
        "peak_bytes": peak_bytes(),
        "baseline_bytes": baseline,
        "replies": strategy.replies,
    }
