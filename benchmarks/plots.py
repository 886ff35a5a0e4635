"""Plots of docs/PERFORMANCE.md, as SVG that is the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zk0.measuring.rows import Row
from zk0.svg import save_svg

_COLOURS = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#7a5195", "#3d405b", "#b0785a")


def write_series(path: Path, plot: Mapping[str, Any]) -> None:
    """Lines or labelled points.

    Args:
        path: The SVG file.
        plot: ``title``, ``x`` and ``y`` (axis labels with units), ``lines`` (label to a list of [x, y],
            or [x, y, low, high]), and optionally ``log_x``, ``log_y`` and ``joined`` (off for scattered points).
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for (label, points), colour in zip(plot["lines"].items(), _cycle(len(plot["lines"])), strict=True):
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        style = "o-" if plot.get("joined", True) else "o"
        axes.plot(xs, ys, style, color=colour, label=label)
        if points and len(points[0]) == 4:
            below = [p[1] - p[2] for p in points]
            above = [p[3] - p[1] for p in points]
            axes.errorbar(xs, ys, [below, above], fmt="none", ecolor=colour, capsize=3)
    if plot.get("log_x"):
        axes.set_xscale("log")
    if plot.get("log_y"):
        axes.set_yscale("log")
    else:
        axes.margins(y=0.15)
        if plot.get("from_zero", True):
            axes.set_ylim(bottom=0)
    axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    save_svg(figure, path)


def write_ratios(path: Path, rows: list[Row]) -> None:
    """Every ratio as a bar on a logarithmic axis; right of the line at 1, ours is better."""
    shown = [row for row in rows if row.ratio]
    figure = Figure(figsize=(7.2, 0.7 + 0.32 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown), 0, -1)
    ratios = [row.ratio or 1.0 for row in shown]
    colours = [_COLOURS[0] if ratio >= 1 else _COLOURS[1] for ratio in ratios]
    axes.barh(list(places), [ratio - 1 for ratio in ratios], left=1, color=colours)
    for place, ratio in zip(places, ratios, strict=True):
        axes.annotate(
            f"{ratio:.3g}x",
            (ratio, place),
            (4 if ratio >= 1 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if ratio >= 1 else "right",
            fontsize=8,
        )
    axes.set_yticks(list(places), [row.name for row in shown], fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("times better than the peer (logarithmic)")
    save_svg(figure, path)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]
