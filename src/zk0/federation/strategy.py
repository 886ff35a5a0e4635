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

ADAPTIVE_RATE = 0.01


@dataclass(frozen=True)
class _Row:
    """A strategy: its aggregator, its optimiser at a rate, the sites it needs and why, and its own rate."""

    aggregator: Callable[[FederationParams, _Start, Path], Aggregator]
    optimizer: Callable[[FederationParams, float], ServerOptimizer]
    needs: Callable[[FederationParams], tuple[int, str]] = lambda _: (1, "there must be an update")
    waits: bool = False
    rate: float = 1.0


def _mean(_: FederationParams, start: _Start, __: Path) -> Aggregator:
    return StreamingMean(start)


def _sgd(_: FederationParams, rate: float) -> ServerOptimizer:
    return FedAvg(rate)


def _adaptive(kind: type[FedAdam]) -> _Row:
    """Adaptive steps are the rate's size, not the update's, so at 1.0 a single round would throw the model away.

    Reddi et al. keep tau at 1e-3 and tune the rate, whose best lies between 10^-2.5 and 1 by task; 0.01
    is also what Flower's FedYogi takes. An update well below tau moves the model by up to rate / (2 tau) times
    its momentum, which is 5 times at 0.01: the order of FedAvgM's 10.
    """
    return _Row(_mean, lambda p, rate: kind(rate, p.server_momentum, p.server_beta2, p.server_tau), rate=ADAPTIVE_RATE)


def _krum(several: bool) -> _Row:
    return _Row(
        lambda p, start, folder: Krum(start, folder, p.byzantine, several, p.krum_margin),
        _sgd,
        lambda p: krum_needs(p.byzantine),
        waits=True,
    )


STRATEGIES: dict[Strategy, _Row] = {
    "fedavg": _Row(_mean, _sgd),
    "fedprox": _Row(_mean, _sgd),
    "fedavgm": _Row(_mean, lambda p, rate: FedAvgM(rate, p.server_momentum)),
    "fedadam": _adaptive(FedAdam),
    "fedyogi": _adaptive(FedYogi),
    "fedmedian": _Row(lambda _, start, folder: Median(start, folder), _sgd, lambda _: median_needs(), waits=True),
    "trimmed-mean": _Row(
        lambda p, start, folder: TrimmedMean(start, folder, p.trimmed_share),
        _sgd,
        lambda p: trimmed_needs(p.trimmed_share),
        waits=True,
    ),
    "krum": _krum(several=False),
    "multi-krum": _krum(several=True),
}


def make_aggregator(params: FederationParams, start: _Start, workspace: Path) -> Aggregator:
    """The aggregator for one round.

    Args:
        params: The federation's.
        start: The global model's trainable tensors.
        workspace: Where updates may wait on disk, for strategies that need all of them.
    """
    return STRATEGIES[params.strategy].aggregator(params, start, workspace)


def server_rate(params: FederationParams) -> float:
    """The server's learning rate before any schedule: the params', or else the strategy's own."""
    rate = params.server_learning_rate
    return STRATEGIES[params.strategy].rate if rate is None else rate


def make_optimizer(params: FederationParams, rate: float | None = None) -> ServerOptimizer:
    """The server's optimiser.

    Args:
        params: The federation's.
        rate: The round's learning rate; None takes :func:`server_rate`.
    """
    return STRATEGIES[params.strategy].optimizer(params, server_rate(params) if rate is None else rate)


def check_enough(params: FederationParams, sites: int) -> None:
    """Refuse a strategy that cannot work with so few sites, before they train for nothing.

    Args:
        params: The federation's.
        sites: How many train in a round.

    Raises:
        StageError: They are too few even if all answer; says how many are needed and why.
    """
    needed, why = STRATEGIES[params.strategy].needs(params)
    if sites < needed:
        there, mend = f"there are {sites}", "Add sites"
        if params.fraction < 1:
            there, mend = f"federation.fraction {params.fraction:g} draws {sites} a round", f"{mend}, draw more"
        raise StageError(
            f"federation.strategy {params.strategy} needs {needed} sites, since {why}; {there}. {mend}, or use "
            "another strategy"
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
