"""docs/PERFORMANCE.md, made from benchmarks/results.json: tables, plots, and how each figure was measured."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import NotRequired, TypedDict

from matplotlib.figure import Figure

from benchmarks.harness import NAMES, Plot, number
from zk0.files import write_text
from zk0.measuring.rows import Report, Row
from zk0.records.base import Machine
from zk0.svg import save_svg

PAGE = Path("docs/PERFORMANCE.md")
IMAGES = Path("docs/images/performance")
_COLOURS = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#7a5195", "#3d405b", "#b0785a")

_HEAD = """# Performance

Generated from [benchmarks/results.json](../benchmarks/results.json) by `make bench`; do not edit.

Every peer runs in the same call as ours, on the same machine and data, taking turns where both can be in memory
at once. A figure is the median of its repeats. The **ratio** says how many times better ours is: above 1, ours is
better, and below 1 the peer is. The **limit** is what the hardware allows for the same work, where that is known.
`python -m benchmarks.NAME --help` runs any of them alone; benchmarks/README.md tells how, on a GPU machine too."""


class Detail(TypedDict):
    """What a report keeps of a benchmark: see :class:`benchmarks.harness.Outcome`, its rows' names, when and where."""

    title: str
    about: str
    rows: list[str]
    spread: NotRequired[dict[str, str]]
    series: NotRequired[dict[str, Plot]]
    created: str
    machine: dict[str, object]
    quick: NotRequired[bool]


def write_page(root: Path, report: Report) -> list[Path]:
    """Write the page and its plots, and remove plots that nothing refers to any more.

    Args:
        root: Project folder.
        report: What was measured.

    Returns:
        All files written.
    """
    written = [root / IMAGES / "ratios.svg"]
    write_ratios(written[0], list(report.rows))
    parts = [_HEAD, "![Ratios](images/performance/ratios.svg)"]
    for key in sorted(report.details, key=_place):
        detail: Detail = report.details[key]
        rows = [row for row in report.rows if row.name in detail["rows"]]
        parts += section(detail, rows)
        for stem, plot in detail.get("series", {}).items():
            path = root / IMAGES / f"{stem}.svg"
            write_series(path, plot)
            written.append(path)
    for stale in set((root / IMAGES).glob("*.svg")) - set(written):
        stale.unlink()
    write_text(root / PAGE, "\n\n".join(parts))
    return [*written, root / PAGE]


def _place(key: str) -> tuple[int, str]:
    """Sections stand in the order of the benchmarks, a variant after its own."""
    name = key.partition("-")[0]
    return (NAMES.index(name) if name in NAMES else len(NAMES), key)


def section(detail: Detail, rows: list[Row]) -> list[str]:
    """One benchmark's paragraphs."""
    parts = [f"## {detail['title']}", detail["about"], table(rows)]
    if spreads := [f"- {name}: {text}" for name, text in detail.get("spread", {}).items()]:
        parts.append("Spread of the repeats:\n\n" + "\n".join(spreads))
    parts += [f"![{plot['title']}](images/performance/{stem}.svg)" for stem, plot in detail.get("series", {}).items()]
    commands = "\n".join(f"- `{command}`" for command in dict.fromkeys(row.command for row in rows))
    size = " at small sizes" if detail.get("quick") else ""
    machine = machine_text(Machine.model_validate(detail["machine"]))
    parts.append(f"Measured{size} on {detail['created'][:10]}, {machine}, by\n\n{commands}")
    return parts


def table(rows: list[Row]) -> str:
    """Rows as a table in Markdown."""
    lines = ["| what | work | ours | peer | ratio | limit | unit |", "| --- | --- | --: | --: | --: | --: | --- |"]
    for row in rows:
        peer = f"{number(row.peer)} ({row.peer_name})" if row.peer is not None else "none known"
        ratio = f"{row.ratio:.3g}" if row.ratio is not None else ""
        cells = [row.name, row.work, number(row.ours), peer, ratio, number(row.limit), row.unit]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def machine_text(machine: Machine) -> str:
    """A machine in a few words.

    >>> machine_text(Machine(cpu="Xeon", cores=2, memory_bytes=24_000_000_000, python="3.12.1"))
    'Xeon, 2 cores, 24 GB, no GPU, Python 3.12.1'
    """
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    memory = f"{(machine.memory_bytes or 0) / 1e9:.0f} GB"
    return f"{machine.cpu}, {machine.cores} cores, {memory}, {gpus}, Python {machine.python}"


def write_series(path: Path, plot: Plot) -> None:
    """A plot as an SVG file."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for (label, points), colour in zip(plot["lines"].items(), cycle(_COLOURS), strict=False):
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
