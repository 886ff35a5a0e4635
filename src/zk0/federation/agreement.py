"""How far a site's numbers count: one that differs from all others counts as differing by no more than a margin.

Winsorised by joint (Tukey and McLaughlin, "Less Vulnerable Confidence and Location Procedures for Location Based on a
Single Sample", Sankhya A, 1963), with a margin that leaves sites alone which differ as honest ones do: each site's
value is held to the range that is left of the sites' values without the farthest at each end, and the margin. One site
in five may be the farthest, and at least one. So liars, up to so many, cannot move what is made of all values beyond
what honest sites show and the margin, whatever they say and together.

Of fewer than four sites nobody can tell which one differs: there every value counts, within the arm's build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from zk0.data.units import longest_change, longest_step
from zk0.federation.statistics import Moments, merge_all
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


def _values(moments: Moments) -> dict[str, np.ndarray]:
    """What is bounded: the fields, with deviations in place of their squares' sums."""
    values = {**vars(moments)}
    for name in ("state", "action"):
        values[f"deviation_{name}"] = np.sqrt(values.pop(f"m2_{name}") / moments.count)
    return values


def _bounds(sites: list[dict[str, np.ndarray]], fps: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
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


def _held(moments: Moments, bounds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Moments, str]:
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


def _in_words(name: str, told: np.ndarray, counted: np.ndarray, changed: np.ndarray) -> str:
    """One field's change, at the joint where it is largest."""
    what = name.replace("_", " of the ")
    if not told.shape:
        return f"{what} {told:g} as {counted:g}"
    joint = int(np.argmax(np.abs(told - counted)))
    several = f" (and {int(changed.sum()) - 1} more joints)" if changed.sum() > 1 else ""
    return f"{what} of {JOINTS[joint]}{several} {told[joint]:.4g} as {counted[joint]:.4g}"
