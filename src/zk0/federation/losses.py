"""What a site's held-out loss counts as: it chooses the best round, the end and the schedules, so it has a bounded say.

The mean is weighted by the held-out frames of the sites' manifests. From four sites on

- a site's part in round 1's mean, frames times loss, may be no more than twice the next one's; its weight is less where
  it would be. What it weighs then, it weighs in every round.
- in a later round its loss may differ by no more than half from what the others' change suggests: its own loss of
  round 1, times the sites' median change since. One liar does not move a median (Huber, Robust Statistics, 1981,
  section 1.4). A site that is away counts as that, so that silence steers nothing either; one that was away in round 1
  does not count.

So a site that lies moves a round's mean by half of its part in it, and of five sites' that part is a third at most.
Where no site is beyond these bounds, it is the mean weighted by frames, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from zk0.federation.agreement import COUNT_TIMES, FEWEST, farthest
from zk0.federation.schedules import Rows
from zk0.params import PrivacyParams

# What of the embedded sites is at most 1.7 and 1.2.
PART_TIMES = 2.0
CHANGE_TIMES = 1.5
_MOST = 1e6  # a model with such a loss is of no use, and a larger one might overflow a sum
_LEAST = 1e-6  # of a loss that others are divided by
_NOISES = 8.0  # standard deviations that noise never reaches


@dataclass(frozen=True)
class AgreedLoss:
    """The sites' mean loss.

    Attributes:
        mean: Weighted by frames.
        bounded: Site to what of its own counts as something else.
    """

    mean: float
    bounded: dict[str, str]


def sound_loss(loss: float, privacy: PrivacyParams) -> float:
    """A loss within what an honest site can tell: no mean of squares is below 0, but a noised one may be."""
    least, most = 0.0, _MOST
    if privacy.mode == "site":
        noise = _NOISES * privacy.report_noise_multiplier * privacy.loss_bound / 2
        least, most = -noise, privacy.loss_bound + noise
    return min(max(loss, least), most)


def agreed_loss(told: Mapping[str, float], frames: Mapping[str, int], rows: Rows) -> AgreedLoss:
    """The mean of the sites' losses, each within its bounds.

    Args:
        told: By site, of this round; sound ones, of one site at least.
        frames: Held-out frames of all sites of the run, in partition order.
        rows: Of the rounds before; round 1's losses are what later ones are compared with.

    Example:
        >>> first = {"round": 1, "sites": {name: {"held_out_loss": 1.0} for name in "abcd"}}
        >>> agreed_loss({"a": 0.9, "b": 0.9, "c": 0.9, "d": 0.0}, dict.fromkeys("abcd", 10), [first])
        AgreedLoss(mean=0.825, bounded={'d': 'its held-out loss of 0 as 0.6'})
    """
    first = _losses_of_round_1(rows)
    compared = [site for site in told if first.get(site, 0.0) >= _LEAST]
    if len(first or told) < FEWEST or (first and not compared):
        return AgreedLoss(_mean(told, frames), {})
    if not first:
        weights = _weights(told, frames)
        less = {site: f"{frames[site]} held-out frames as {weights[site]:.4g}" for site in weights}
        return AgreedLoss(
            _mean(told, weights), {site: why for site, why in less.items() if weights[site] < frames[site]}
        )
    change = median(told[site] / first[site] for site in compared)
    counted = {site: _counted(told.get(site), loss * change) for site, loss in first.items()}
    bounded = {
        site: f"its held-out loss of {loss:.4g} as {counted[site]:.4g}" if site in counted else "it was away in round 1"
        for site, loss in told.items()
        if counted.get(site) != loss
    }
    return AgreedLoss(_mean(counted, _weights(first, frames)), bounded)


def _losses_of_round_1(rows: Rows) -> dict[str, float]:
    """By site; none before that round is over."""
    sites: Mapping[str, Any] = next((row["sites"] for row in rows if row["round"] == 1 and "sites" in row), {})
    return {site: float(told["held_out_loss"]) for site, told in sites.items() if "held_out_loss" in told}


def _counted(loss: float | None, expected: float) -> float:
    """What a site's loss counts as, where the others' change suggests another; None = it is away."""
    if loss is None:
        return expected
    return min(max(loss, expected / CHANGE_TIMES), expected * CHANGE_TIMES)


def _weights(losses: Mapping[str, float], frames: Mapping[str, int]) -> dict[str, float]:
    """Frames, or less of a site that would have too large a part in the mean of these losses."""
    sites = [site for site in frames if site in losses]
    most = COUNT_TIMES * _next([frames[site] for site in sites])
    weights: dict[str, float] = {site: min(frames[site], most) for site in sites}
    part = PART_TIMES * _next([weights[site] * losses[site] for site in sites])
    return {site: part / losses[site] if weight * losses[site] > part else weight for site, weight in weights.items()}


def _next(values: list[float]) -> float:
    """The largest of what is left without the farthest."""
    return sorted(values)[-1 - farthest(len(values))]


def _mean(losses: Mapping[str, float], weights: Mapping[str, float]) -> float:
    total, weight = 0.0, 0.0
    for site in weights:
        if site in losses:
            total += losses[site] * weights[site]
            weight += weights[site]
    return total / weight
