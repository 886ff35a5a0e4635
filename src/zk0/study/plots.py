"""Plots of docs/RESULTS.md, as SVG that is the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zk0.evaluation.paired import Difference, Estimate
from zk0.svg import save_svg

COLOURS = ("#2f7fd6", "#d1853c", "#3a9d78", "#8c6bb8", "#c4577a", "#8a94a6")
_ROW = 0.34  # inches


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
        reach = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
        axes.errorbar(values, places, xerr=reach, fmt="o", capsize=3, color=COLOURS[number], label=group)
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
    reach = [[d.value - d.low for d in found], [d.high - d.value for d in found]]
    axes.errorbar([d.value for d in found], list(places), xerr=reach, fmt="o", capsize=3, color=COLOURS[0])
    axes.axvline(0, color="black", linewidth=0.8)
    if margin is not None:
        axes.axvline(-margin, color=COLOURS[4], linewidth=0.8, linestyle="dashed")
    axes.set_yticks(list(places), list(differences))
    axes.set_xlabel(axis)
    save_svg(figure, path)


def write_curve(path: Path, points: Sequence[tuple[float, Estimate]], x: str, y: str, marked: str = "") -> None:
    """One curve with intervals on a logarithmic axis.

    Args:
        path: The SVG file.
        points: x, and rate.
        x, y: Names and units.
        marked: What is held still, as a title.
    """
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(points, key=lambda point: point[0])
    xs, found = [p[0] for p in ordered], [p[1] for p in ordered]
    reach = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
    axes.errorbar(xs, [e.value for e in found], yerr=reach, fmt="o-", capsize=3, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{value:,.0f}" for value in xs])
    axes.minorticks_off()
    axes.set(xlabel=x, ylabel=y, title=marked)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    save_svg(figure, path)


def _rows(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 1.0 + _ROW * max(count, 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(0.4, count + 0.6)
    axes.grid(axis="x", alpha=0.25)
    return figure, axes
