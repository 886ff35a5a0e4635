"""What a round is to be: who trains, from which proximal weight, and how far the server then steps.

A pure function of the params and of the rows of the rounds before, so a resumed run makes the same
plan. Sites are drawn as in McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017: uniformly, without putting back, anew each round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zk0.federation.schedules import Rows, proximal_mu, server_share
from zk0.federation.strategy import server_rate
from zk0.params import FederationParams, Params
from zk0.seeding import numpy_rng


@dataclass(frozen=True)
class RoundPlan:
    """A round before it begins.

    Attributes:
        round: From 1.
        partitions: Which sites train, in partition order.
        server_rate: The server's learning rate.
        proximal_mu: FedProx's weight (0 = off).
    """

    round: int
    partitions: tuple[int, ...]
    server_rate: float
    proximal_mu: float

    def record(self) -> dict[str, Any]:
        """What of it stands in the round's row and event."""
        return {"server_learning_rate": self.server_rate, "proximal_mu": self.proximal_mu}

    def told(self, params: FederationParams, sites: int) -> str:
        """A line to print; what is the same in every round is left out."""
        told = [f"round {self.round} of {params.rounds}"]
        if len(self.partitions) < sites:
            told.append(f"{len(self.partitions)} of {sites} sites train")
        if params.server_schedule != "constant":
            told.append(f"server learning rate {self.server_rate:.3g}")
        if params.proximal_schedule != "constant":
            told.append(f"proximal mu {self.proximal_mu:.3g}")
        return ", ".join(told)


def plan_round(params: Params, rows: Rows, partitions: Sequence[int]) -> RoundPlan:
    """The round after those of these rows.

    Args:
        params: The run's.
        rows: Of all rounds so far, round 0 first.
        partitions: The run's, in order; a site that left may have left a gap.
    """
    federation, number = params.federation, int(rows[-1]["round"]) + 1
    return RoundPlan(
        round=number,
        partitions=tuple(
            partitions[place] for place in draw_sites(params.seed, number, len(partitions), federation.fraction)
        ),
        server_rate=server_rate(federation) * server_share(federation, number, rows),
        proximal_mu=proximal_mu(federation, number, rows),
    )


def draw_sites(seed: int, number: int, sites: int, fraction: float) -> tuple[int, ...]:
    """Which of the sites train in a round, in order, the first being 0; every one is as likely as any other.

    Args:
        seed: The run's.
        number: The round.
        sites: How many there are.
        fraction: Share of them to draw, see :func:`sites_drawn`.
    """
    count = sites_drawn(sites, fraction)
    if count == sites:
        return tuple(range(sites))
    chosen = numpy_rng(seed, "sites", number).choice(sites, size=count, replace=False)
    return tuple(sorted(int(partition) for partition in chosen))


def sites_drawn(sites: int, fraction: float) -> int:
    """How many sites train in a round: the fraction, rounded up, so never none.

    >>> sites_drawn(10, 0.25), sites_drawn(10, 0.01), sites_drawn(4, 1.0)
    (3, 1, 4)
    """
    return min(sites, max(1, math.ceil(sites * fraction - 1e-9)))
