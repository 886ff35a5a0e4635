"""The strategies by name: how each combines updates, and what the server then does with the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from zk0.errors import StageError
from zk0.federation.aggregation import Aggregator, StreamingMean
from zk0.federation.robust import Krum, Median, TrimmedMean, krum_needs, median_needs, trimmed_needs
from zk0.federation.server_optimizer import FedAdam, FedAvg, FedAvgM, FedYogi, ServerOptimizer
from zk0.params import FederationParams, Strategy

_Start = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Row:
    """A strategy: its aggregator, its optimiser, the sites it needs and why."""

    aggregator: Callable[[FederationParams, _Start, Path], Aggregator]
    optimizer: Callable[[FederationParams], ServerOptimizer]
    needs: Callable[[FederationParams], tuple[int, str]] = lambda _: (1, "there must be an update")
    waits: bool = False


def _mean(_: FederationParams, start: _Start, __: Path) -> Aggregator:
    return StreamingMean(start)


def _sgd(params: FederationParams) -> ServerOptimizer:
    return FedAvg(params.server_learning_rate)


def _adaptive(kind: type[FedAdam]) -> Callable[[FederationParams], ServerOptimizer]:
    return lambda p: kind(p.server_learning_rate, p.server_momentum, p.server_beta2, p.server_tau)


STRATEGIES: dict[Strategy, _Row] = {
    "fedavg": _Row(_mean, _sgd),
    "fedprox": _Row(_mean, _sgd),
    "fedavgm": _Row(_mean, lambda p: FedAvgM(p.server_learning_rate, p.server_momentum)),
    "fedadam": _Row(_mean, _adaptive(FedAdam)),
    "fedyogi": _Row(_mean, _adaptive(FedYogi)),
    "fedmedian": _Row(lambda _, start, folder: Median(start, folder), _sgd, lambda _: median_needs(), waits=True),
    "trimmed-mean": _Row(
        lambda p, start, folder: TrimmedMean(start, folder, p.trimmed_share),
        _sgd,
        lambda p: trimmed_needs(p.trimmed_share),
        waits=True,
    ),
    "krum": _Row(
        lambda p, start, folder: Krum(start, folder, p.byzantine), _sgd, lambda p: krum_needs(p.byzantine), waits=True
    ),
}


def make_aggregator(params: FederationParams, start: _Start, workspace: Path) -> Aggregator:
    """The aggregator for one round.

    Args:
        params: The federation's.
        start: The global model's trainable tensors.
        workspace: Where updates may wait on disk, for strategies that need all of them.
    """
    return STRATEGIES[params.strategy].aggregator(params, start, workspace)


def make_optimizer(params: FederationParams) -> ServerOptimizer:
    """The server's optimiser."""
    return STRATEGIES[params.strategy].optimizer(params)


def check_enough(params: FederationParams, sites: int) -> None:
    """Refuse a strategy that cannot work with so few sites, before they train for nothing.

    Args:
        params: The federation's.
        sites: How many there are.

    Raises:
        StageError: They are too few even if all answer; says how many are needed and why.
    """
    needed, why = STRATEGIES[params.strategy].needs(params)
    if sites < needed:
        raise StageError(
            f"federation.strategy {params.strategy} needs {needed} sites, since {why}; there are {sites}. Add "
            "sites, or use another strategy"
        )


def cost(params: FederationParams, sites: int, trainable_bytes: int) -> str:
    """What a strategy costs the server in a round, as a line to print."""
    size = trainable_bytes / 1e6
    if not STRATEGIES[params.strategy].waits:
        return f"{params.strategy} streams: {size:,.0f} MB of memory for any number of sites, nothing on disk"
    return (
        f"{params.strategy} needs all updates at once: {sites} x {size:,.0f} MB wait on disk, written once and read "
        f"once, and {size:,.0f} MB of memory"
    )
