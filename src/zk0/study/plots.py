"""A study's plots, as SVG that is the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zk0.evaluation.paired import Difference, Estimate
from zk0.svg import save_svg

_MANY = 4  # curves beyond which intervals hide each other, and a legend the curves
COLOURS = ("#2f7fd6", "#d1853c", "#3a9d78", "#8c6bb8", "#c4577a", "#8a94a6")


def write_rates(path: Path, rates: Mapping[str, Mapping[str, Estimate | None]], axis: str) -> None:
    """Points with intervals, a row for each arm and a colour for each group of tasks.

    Args:
        path: The SVG file.
        rates: Group (seen, unseen) to arm to rate.
        axis: Name and unit of what is shown.
    """
    arms = list(dict.fromkeys(arm for group in rates.values() for arm in group))
    figure, axes = _rows(len(arms))
    for number, (group, by_arm) in enumerate(rates.items()):
        places = [len(arms) - arms.index(arm) + 0.12 * (0.5 - number) for arm, found in by_arm.items() if found]
        found = [estimate for estimate in by_arm.values() if estimate]
        values = [estimate.value for estimate in found]
        axes.errorbar(values, places, xerr=_reach(found), fmt="o", capsize=3, color=COLOURS[number], label=group)
    axes.set_yticks(range(len(arms), 0, -1), arms)
    axes.set_xlabel(axis)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="best")
    save_svg(figure, path)


def write_differences(path: Path, differences: Mapping[str, Difference], axis: str, margin: float | None) -> None:
    """Paired differences with intervals; right of 0 the first arm is better.

    Args:
        path: The SVG file.
        differences: What is compared, to the difference.
        axis: Name and unit.
        margin: A line at minus this, below which the first arm is clearly worse (None = no line).
    """
    figure, axes = _rows(len(differences))
    found = list(differences.values())
    places = range(len(found), 0, -1)
    axes.errorbar([d.value for d in found], list(places), xerr=_reach(found), fmt="o", capsize=3, color=COLOURS[0])
    axes.axvline(0, color="black", linewidth=0.8)
    if margin is not None:
        axes.axvline(-margin, color=COLOURS[4], linewidth=0.8, linestyle="dashed")
    axes.set_yticks(list(places), list(differences))
    axes.set_xlabel(axis)
    save_svg(figure, path)


def write_curves(
    path: Path,
    curves: Mapping[str, Sequence[tuple[float, Estimate]]],
    x: str,
    y: str,
    title: str = "",
    doubling: bool = True,
) -> None:
    """Curves with intervals; without, where they are many.

    Args:
        path: The SVG file.
        curves: Label to points: x, and rate. One without a label has no legend.
        x, y: Names and units.
        title: Above them.
        doubling: Whether x grows by doubling, on a logarithmic axis, which has no 0.
    """
    many = len(curves) > _MANY
    figure = Figure(figsize=(7.6, 4.4) if many else (5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (label, points) in enumerate(curves.items()):
        again, colour = divmod(number, len(COLOURS))
        ordered = sorted(points, key=lambda point: point[0])
        found = [rate for _, rate in ordered]
        places = [place for place, _ in ordered]
        values = [estimate.value for estimate in found]
        reach, form = None if many else _reach(found), "o--" if again else "o-"
        axes.errorbar(places, values, yerr=reach, fmt=form, capsize=3, color=COLOURS[colour], label=label)
    if doubling:
        axes.set_xscale("log")
    ticks = sorted({place for points in curves.values() for place, _ in points})
    axes.set_xticks(ticks, [f"{value:,.6g}" for value in ticks])
    axes.minorticks_off()
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if any(curves):
        if many:
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        else:
            axes.legend(frameon=False, loc="best")
    save_svg(figure, path)


def _rows(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 1.0 + 0.34 * max(count, 1)), layout="constrained")  # inches
    axes = figure.subplots()
    axes.set_ylim(0.4, count + 0.6)
    axes.grid(axis="x", alpha=0.25)
    return figure, axes


def _reach(found: Sequence[Estimate | Difference]) -> list[list[float]]:
    """How far intervals reach below and above their values."""
    return [[one.value - one.low for one in found], [one.high - one.value for one in found]]
