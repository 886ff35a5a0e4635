"""What a round is to be: who trains, from which proximal weight, how far the server then steps, and when the run ends.

A pure function of the params and of the rows of the rounds before, so a run that is taken up again goes on as if it had
not been stopped. Sites are drawn as in McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017: uniformly, without putting back, anew each round.

The server's rate, the proximal weight and the end follow the round or the held-out trend. Round 0, which only judges
the start, is no round to compare with: it is not a candidate for the best model either. The cosine is Loshchilov and
Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts. The proximal weight follows
the loss after the heuristic of Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, section 5.3:
theirs rises by 0.1 when the loss rises and falls by 0.1 after five rounds of falling loss. Here it is multiplied, since
its scale depends on the model's size, and the number of rounds is a param.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from zk0.federation.agreement import says
from zk0.federation.privacy.accountant import affordable_rounds
from zk0.federation.privacy.central import CentralPrivacy
from zk0.federation.strategy import server_rate
from zk0.params import FederationParams, Params
from zk0.records.run import Round
from zk0.seeding import numpy_rng

Rows = Sequence[Round]


@dataclass(frozen=True)
class RoundPlan:
    """A round before it begins.

    Attributes:
        round: From 1.
        partitions: Which sites train, in partition order.
        server_rate: The server's learning rate.
        proximal_mu: FedProx's weight (0 = off).
        says: Site to how many times its examples it counts; once where it is not named.
    """

    round: int
    partitions: tuple[int, ...]
    server_rate: float
    proximal_mu: float
    says: Mapping[str, float] = field(default_factory=dict)

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
    federation, number = params.federation, rows[-1].round + 1
    return RoundPlan(
        round=number,
        partitions=tuple(
            partitions[place] for place in draw_sites(params.seed, number, len(partitions), federation.fraction)
        ),
        server_rate=server_rate(federation) * server_share(federation, number, rows),
        proximal_mu=proximal_mu(federation, number, rows),
        says=says(_held_out(rows[-1])) if federation.weighting == "loss" else {},
    )


def _held_out(row: Round) -> dict[str, float]:
    """What each judge loses by the model of a round."""
    return {site: told.held_out_loss for site, told in row.sites.items() if told.held_out_loss is not None}


def draw_sites(seed: int, number: int, sites: int, fraction: float) -> tuple[int, ...]:
    """Which of the sites train in a round, in order, the first being 0; every one is as likely as any other.

    Args:
        seed: The run's.
        number: The round.
        sites: How many there are.
        fraction: Share of them to draw, see :func:`sites_drawn`.
    """
    return _drawn(seed, ("sites", number), sites, fraction)


def judges(params: Params, partitions: Sequence[int]) -> tuple[int, ...]:
    """The partitions that judge every global model of a run: were they others each round, its loss would follow them.

    Args:
        params: The run's.
        partitions: The run's, in order.
    """
    chosen = _drawn(params.seed, ("judges", 0), len(partitions), params.federation.judges)
    return tuple(partitions[place] for place in chosen)


def _drawn(seed: int, stream: tuple[str, int], sites: int, share: float) -> tuple[int, ...]:
    count = sites_drawn(sites, share)
    if count == sites:
        return tuple(range(sites))
    chosen = numpy_rng(seed, *stream).choice(sites, size=count, replace=False)
    return tuple(sorted(int(place) for place in chosen))


def sites_drawn(sites: int, fraction: float) -> int:
    """How many sites a share of them is: rounded up, so never none.

    >>> sites_drawn(10, 0.25), sites_drawn(10, 0.01), sites_drawn(4, 1.0)
    (3, 1, 4)
    """
    return min(sites, max(1, math.ceil(sites * fraction - 1e-9)))


def server_share(params: FederationParams, number: int, rows: Rows) -> float:
    """Share of the server's learning rate that holds in a round, from ``server_least_share`` to 1.

    Args:
        params: The federation's.
        number: The round, from 1.
        rows: Of the rounds before it.
    """
    least = params.server_least_share
    if params.server_schedule == "cosine":
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * _progress(params, number)))
    if params.server_schedule == "plateau":
        share, best, stale = 1.0, math.inf, 0
        for loss in _losses(rows):
            best, stale = (loss, 0) if loss < best else (best, stale + 1)
            if stale == params.schedule_patience:
                share, stale = max(least, share * params.schedule_factor), 0
        return share
    return 1.0


def proximal_mu(params: FederationParams, number: int, rows: Rows) -> float:
    """FedProx's weight in a round; 0 for other strategies.

    Args:
        params: The federation's.
        number: The round, from 1.
        rows: Of the rounds before it.
    """
    least = params.proximal_least_share
    if params.proximal_schedule == "linear":
        progress = _progress(params, number)
        return params.proximal_mu * ((1 - progress) + progress * least)
    if params.proximal_schedule == "trend":
        share, falls = 1.0, 0
        for before, after in pairwise(_losses(rows)):
            falls = falls + 1 if after < before else 0
            if after > before:
                share = min(1 / least, share / params.schedule_factor)
            elif falls == params.schedule_patience:
                share, falls = max(least, share * params.schedule_factor), 0
        return params.proximal_mu * share
    return params.proximal_mu


def why_stopped(params: Params, rows: Rows, central: CentralPrivacy | None) -> str | None:
    """Why a run ends after these rounds though others are left: no progress, or no budget; None where it does not.

    Args:
        params: The run's.
        rows: Of all rounds so far, round 0 first.
        central: The run's privacy, where its mode is central.
    """
    privacy, number = params.privacy, rows[-1].round
    if number >= params.federation.rounds:
        return None
    if why := stop_reason(params.federation, rows):
        return why
    if central:
        return central.stops(number + 1)
    if privacy.mode == "site" and (most := affordable_rounds(privacy, number + 1)) <= number:
        return f"privacy.target_epsilon {privacy.target_epsilon:g} affords {most} rounds"
    return None


def stop_reason(params: FederationParams, rows: Rows) -> str | None:
    """Why a run ends after these rounds, though others are left; None where it does not.

    It ends after ``stop_after`` rounds of which none was better, by ``stop_margin`` of it, than the
    last one that was.
    """
    if not params.stop_after:
        return None
    best, at, last = math.inf, 0, 0
    for last, loss in enumerate(_losses(rows), 1):
        if loss < best * (1 - params.stop_margin):
            best, at = loss, last
    if last - at < params.stop_after or last >= params.rounds:
        return None
    margin = f" by {params.stop_margin:.3g} of it" if params.stop_margin else ""
    return (
        f"no round since round {at} was better{margin} than its held-out loss of {best:.4f}, and federation.stop_after "
        f"is {params.stop_after}"
    )


def _losses(rows: Rows) -> list[float]:
    """Held-out losses of the rounds that trained, in order."""
    return [row.held_out_loss for row in rows if row.round > 0]


def _progress(params: FederationParams, number: int) -> float:
    """How much of the run lies behind: 0 in round 1, 1 in the last."""
    return min(1.0, (number - 1) / max(1, params.rounds - 1))
