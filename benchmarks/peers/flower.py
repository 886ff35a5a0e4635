"""Flower's own: its simulation on Ray, its FedAvg as a server alone, and its records.

What would load torch is imported where it is used: the simulation's processes are to hold what they need.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.sizes import shapes_of
from zk0.measuring.timing import PrivatePeak, peak_bytes, private_bytes, reset_peak, resident_bytes

_SMALL = 10_000

client_app = ClientApp()


@client_app.train()
def _train(message: Message, _: Context) -> Message:
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
        """As FedAvg's, with the time noted."""
        self._began = time.perf_counter()
        return super().configure_train(server_round, *arguments, **named)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg's, with the time and the number of replies without an error noted."""
        kept = list(replies)
        self.replies.append(sum(not message.has_error() for message in kept))
        averaged = super().aggregate_train(server_round, kept)
        self.times.append((self._began, time.perf_counter()))
        return averaged


def arrays_of(values: int, rng: np.random.Generator | None = None) -> ArrayRecord:
    """A random model of about ``values`` fp32 parameters in SmolVLA's trainable shapes."""
    rng = rng or np.random.default_rng(0)
    return ArrayRecord(
        {name: Array(rng.standard_normal(shape, dtype=np.float32)) for name, shape in shapes_of(values).items()}
    )


class PeerRounds(TypedDict):
    """Flower's rounds.

    Attributes:
        start_s: Seconds from the call to the end of the first round, less an ordinary round.
        round_s: Seconds of the others.
        peak_bytes: Most memory of the server's process.
        baseline_bytes: What that began with.
        private_bytes: The most that the process alone held, less what it held at the beginning.
        replies: How many each round averaged.
    """

    start_s: float
    round_s: list[float]
    peak_bytes: int
    baseline_bytes: int
    private_bytes: int
    replies: list[int]


def simulation_rounds(*, sites: int, values: int, rounds: int) -> PeerRounds:
    """Run rounds and time them.

    Args:
        sites: Virtual SuperNodes.
        values: Parameters of the model, fp32.
        rounds: Rounds after the first, which starts Ray's workers and counts as start-up.
    """
    strategy = TimedFedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, _: Context) -> None:
        strategy.start(grid, initial_arrays=arrays_of(values), num_rounds=1 + rounds)

    baseline, private, began = resident_bytes(), private_bytes(), time.perf_counter()
    with PrivatePeak() as peak:
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
        "private_bytes": peak.most - private,
        "replies": strategy.replies,
    }


def server_peak(*, sites: int, values: int, rounds: int) -> dict[str, int]:
    """Peak memory of FedAvg's process while a stand-in for the network hands it replies, as for ours.

    Args:
        sites: Nodes.
        values: Parameters of the model, fp32.
        rounds: Rounds to run.
    """
    _serve(sites, _SMALL, rounds)  # what libraries load when first used is no part of the model's cost
    reset_peak()
    baseline = resident_bytes()
    _serve(sites, values, rounds)
    return {"baseline_bytes": baseline, "peak_bytes": peak_bytes(), "trainable_bytes": values * 4}


def _serve(sites: int, values: int, rounds: int) -> None:
    from zk0.federation.inprocess import LocalGrid  # noqa: PLC0415 - it loads torch

    rng = np.random.default_rng(1)

    def answer(message: Message) -> Message:
        content = RecordDict({"arrays": arrays_of(values, rng), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    strategy.start(LocalGrid(sites, answer), initial_arrays=arrays_of(values), num_rounds=rounds)


def record_bytes(*, base: str) -> dict[str, int]:
    """Bytes of a policy's weights as Flower sends them: ``all`` of them, and the ``trainable`` ones alone.

    Args:
        base: A starting policy, as params name it.
    """
    from zk0.policy.start import load_start  # noqa: PLC0415 - likewise
    from zk0.policy.trainable import trainable_tensors  # noqa: PLC0415 - likewise

    policy = load_start(Path(), base, "cpu").policy
    records = {"all": policy.state_dict(), "trainable": trainable_tensors(policy)}
    return {name: sum(len(array.data) for array in ArrayRecord(r).values()) for name, r in records.items()}
