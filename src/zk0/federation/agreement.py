"""What one site may move by what it tells: its statistics and its held-out loss have a bounded say.

Statistics are winsorised by joint (Tukey and McLaughlin, "Less Vulnerable Confidence and Location Procedures for
Location Based on a Single Sample", Sankhya A, 1963), with a margin that leaves sites alone which differ as honest ones
do: each site's value is held to the range that is left of the sites' values without the farthest at each end, and the
margin. One site in five may be the farthest, and at least one. So liars, up to so many, cannot move what is made of all
values beyond what honest sites show and the margin, whatever they say and together.

Held-out losses choose the best round, the end and the schedules. Their mean is weighted by the held-out frames of the
sites' manifests, but

- a site's part in round 1's mean, frames times loss, may be no more than twice the next one's; its weight is less where
  it would be. What it weighs then, it weighs in every round.
- in a later round its loss may differ by no more than half from what the others' change suggests: its own loss of
  round 1, times the sites' median change since. One liar does not move a median (Huber, Robust Statistics, 1981,
  section 1.4). A site that is away counts as that, so that silence steers nothing either; one that was away in round 1
  does not count.

So a site that lies moves a round's mean by half of its part in it, and of five sites' that part is a third at most.
Where no site is beyond these bounds, it is the mean weighted by frames, bit for bit.

Where sites are weighted by loss, that of the model which they are sent, a site has at most twice the say of one with
the sites' median loss, and at least half of it. So one that claims to fare badly is heard at most twice.

Of fewer than four sites nobody can tell which one differs: there every value counts, within the arm's build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from zk0.data.units import longest_change, longest_step
from zk0.federation.statistics import Floats, Moments, merge_all
from zk0.records.run import Round
from zk0.so100 import JOINTS

FEWEST = 4
# Degrees (gripper: percent) by which a site's mean, low and high may lie beyond the others'. In the embedded data,
# where a site is a task, one site's lowest elbow lies 56 beyond the next.
POSITIONS_BEYOND = 60.0
# How many times the others' a site's numbers may be; of the embedded sites' 1.6, 1.1 and 1.4 at most.
DEVIATIONS_TIMES = 2.0
STEPS_TIMES = 1.5
COUNT_TIMES = 2.0
_NAMED = 3  # what is said of one site in a line

_POSITIONS = ("mean_state", "mean_action")
_LENGTHS = {
    "deviation_state": DEVIATIONS_TIMES,
    "deviation_action": DEVIATIONS_TIMES,
    "step": STEPS_TIMES,
    "change": STEPS_TIMES,
}
_EVERYTHING = np.inf


def farthest(sites: int) -> int:
    """How many of the sites may be left out of the range at each end: one in five, and at least one.

    >>> farthest(4), farthest(5), farthest(10)
    (1, 1, 2)
    """
    return max(1, sites // 5)


@dataclass(frozen=True)
class Agreed:
    """What becomes of all sites' moments.

    Attributes:
        moments: Merged.
        bounded: Site to what of its own counts as something else.
    """

    moments: Moments
    bounded: dict[str, str]


def agree(told: Mapping[str, Moments], fps: int) -> Agreed:
    """Merge the sites' moments, each within the arm's build and within a margin of the others'.

    Where nothing is beyond them, it is :func:`zk0.federation.statistics.merge_all`, bit for bit.

    Args:
        told: By site, in the order in which they are merged; checked ones.
        fps: The federation's frames per second.
    """
    bounds = _bounds([_values(moments) for moments in told.values()], fps)
    kept, bounded = [], {}
    for site, moments in told.items():
        within, changes = _held(moments, bounds)
        kept.append(within)
        if changes:
            bounded[site] = changes
    return Agreed(merge_all(kept), bounded)


def _values(moments: Moments) -> dict[str, Floats]:
    """What is bounded: the fields, with deviations in place of their squares' sums."""
    values = {**vars(moments)}
    for name in ("state", "action"):
        values[f"deviation_{name}"] = np.sqrt(values.pop(f"m2_{name}") / moments.count)
    return values


def _bounds(sites: list[dict[str, Floats]], fps: int) -> dict[str, tuple[Floats, Floats]]:
    """Least and most that a site's value may be, by field."""
    build = {"step": longest_step(fps), "change": longest_change(fps)}
    bounds = {name: (np.zeros_like(most), most) for name, most in build.items()}
    if len(sites) < FEWEST:
        return bounds
    out = farthest(len(sites))
    ranked = {name: np.sort(np.stack([values[name] for values in sites]), axis=0) for name in sites[0]}
    for name in _POSITIONS:
        bounds[name] = ranked[name][out] - POSITIONS_BEYOND, ranked[name][-1 - out] + POSITIONS_BEYOND
    # A range that is too narrow moves nothing: others' are wider.
    bounds["low"] = ranked["low"][out] - POSITIONS_BEYOND, np.full_like(ranked["low"][0], _EVERYTHING)
    bounds["high"] = np.full_like(ranked["high"][0], -_EVERYTHING), ranked["high"][-1 - out] + POSITIONS_BEYOND
    for name, times in _LENGTHS.items():
        most = ranked[name][-1 - out]
        # A joint that the others hardly use may move as their other joints do.
        most = times * np.maximum(most, np.median(most))
        bounds[name] = np.zeros_like(most), np.minimum(most, build.get(name, _EVERYTHING))
    bounds["count"] = np.array(0.0), COUNT_TIMES * ranked["count"][-1 - out]
    return bounds


def _held(moments: Moments, bounds: Mapping[str, tuple[Floats, Floats]]) -> tuple[Moments, str]:
    """A site's moments within the bounds, the very same where they are, and what that changed, in words."""
    told = _values(moments)
    counted = {name: np.clip(told[name], least, most) for name, (least, most) in bounds.items()}
    changed = {name: value != told[name] for name, value in counted.items()}
    words = [_in_words(name, told[name], counted[name], changed[name]) for name in counted if changed[name].any()]
    if not words:
        return moments, ""
    values = {name: value for name, value in counted.items() if hasattr(moments, name)}
    count = values.get("count", moments.count)
    for name in ("state", "action"):
        if f"deviation_{name}" in counted:
            new = changed[f"deviation_{name}"] | changed["count"]
            squares = counted[f"deviation_{name}"] ** 2 * count
            values[f"m2_{name}"] = np.where(new, squares, getattr(moments, f"m2_{name}"))
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return replace(moments, **values), ", ".join(words[:_NAMED]) + more


def _in_words(name: str, told: Floats, counted: Floats, changed: Floats) -> str:
    """One field's change, at the joint where it is largest."""
    what = name.replace("_", " of the ")
    if not told.shape:
        return f"{what} {told:g} as {counted:g}"
    joint = int(np.argmax(np.abs(told - counted)))
    several = f" (and {int(changed.sum()) - 1} more joints)" if changed.sum() > 1 else ""
    return f"{what} of {JOINTS[joint]}{several} {told[joint]:.4g} as {counted[joint]:.4g}"


SAY_TIMES = 2.0


def says(losses: Mapping[str, float]) -> dict[str, float]:
    """How many times its examples a site counts where whoever fares worse has the larger say.

    q-FFL's objective with q = 1, sum F_k^2 / 2, has the gradient sum F_k grad F_k: Li et al., "Fair Resource Allocation
    in Federated Learning", ICLR 2020, section 3.2. F_k is site k's held-out loss of the model that it is sent.

    Args:
        losses: By site; sound ones.

    >>> says({"a": 0.5, "b": 0.5, "c": 0.6, "d": 2.0})["d"]
    2.0
    """
    if not losses:
        return {}
    middle = max(median(losses.values()), _LEAST)
    return {site: min(max(loss / middle, 1 / SAY_TIMES), SAY_TIMES) for site, loss in losses.items()}


# What of the embedded sites is at most 1.7 and 1.2.
PART_TIMES = 2.0
CHANGE_TIMES = 1.5
_LEAST = 1e-6  # of a loss that others are divided by


@dataclass(frozen=True)
class AgreedLoss:
    """The sites' mean loss.

    Attributes:
        mean: Weighted by frames.
        bounded: Site to what of its own counts as something else.
    """

    mean: float
    bounded: dict[str, str]


def agreed_loss(told: Mapping[str, float], frames: Mapping[str, int], rows: Sequence[Round]) -> AgreedLoss:
    """The mean of the sites' losses, each within its bounds.

    Args:
        told: By site, of this round; sound ones, of one site at least.
        frames: Held-out frames of all sites of the run, in partition order.
        rows: Of the rounds before; round 1's losses are what later ones are compared with.

    Example:
        >>> sites = {name: {"held_out_loss": 1.0} for name in "abcd"}
        >>> first = Round.model_validate({"round": 1, "held_out_loss": 1.0, "sites": sites})
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


def _losses_of_round_1(rows: Sequence[Round]) -> dict[str, float]:
    """By site; none before that round is over."""
    sites = next((row.sites for row in rows if row.round == 1), {})
    return {site: told.held_out_loss for site, told in sites.items() if told.held_out_loss is not None}


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
