"""The probe of rooms, for a terminal and on docs/RESULTS.md: success by factor and size, as curves and tables."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from zk0.reporting.format import NOTHING, machine
from zk0.study.probe_store import FULL, NAME, OWN, TOGETHER, ProbeFolder, ProbeResult, slug
from zk0.study.results_store import STUDIES
from zk0.study.tables import Rows, difference_text, estimate_text, markdown
from zk0.svg import save_svg

_ABOUT = """How a federated model does in rooms that it has not seen, zero shot, on the owners' tasks: one of what
differs between rooms at a time and all together, at several sizes. Size 1 is as far as [rooms](data.md#rooms) go.
Every scene stands in a room of its own, the same for every task, factor and size, so all is paired; intervals are
clustered by room. The model is the comparison's `federated`, as an arm is driven."""


def probe_section(root: Path, images: Path) -> tuple[list[str], list[Path]]:
    """Paragraphs and plots, of which the page knows where they lie; nothing while nothing was probed.

    Args:
        root: Project folder.
        images: Where plots go, below ``docs``.
    """
    parts, plots = list[str](), list[Path]()
    for result in ProbeFolder(root / STUDIES / NAME).results():
        if not result.factors:
            continue
        plot = images / f"{NAME}-{slug(result.record.base)}.svg"
        plots.append(root / plot)
        write_probe(plots[-1], result)
        parts += [
            f"### From {result.record.base}",
            f"![Success by factor and size]({plot.relative_to('docs')})",
            markdown(*probe_table(result)),
            _how(result),
        ]
    return (["## Rooms, probed", _ABOUT, *parts] if parts else []), plots


def probe_table(result: ProbeResult) -> tuple[list[str], Rows]:
    """Success by factor and size, and what is lost of the own room's."""
    sizes = result.sizes
    head = ["what differs", *(f"size {size:g}" for size in sizes), f"size {FULL:g} less own room"]
    rows = [[OWN, estimate_text(result.rate(OWN, 0.0), True), *[NOTHING] * len(sizes)]]
    for factor in result.factors:
        rates = [estimate_text(result.rate(factor, size), True) for size in sizes]
        rows.append([factor, *rates, difference_text(result.change(factor, FULL), True)])
    return head, rows


def overview(folder: ProbeFolder) -> list[Table]:
    """The probed models, for a terminal."""
    tables = []
    for result in folder.results():
        lacking = f"{result.missing} pieces are still to be made" if result.missing else None
        table = Table(title=f"Rooms, from {result.record.base}", caption=lacking)
        head, rows = probe_table(result)
        for name in head:
            table.add_column(name)
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def _how(result: ProbeResult) -> str:
    record, pieces = result.record, list(result.pieces.values())
    first, count = record.scenes
    lacking = f" **{result.missing} pieces are still to be made.**" if result.missing else ""
    return (
        f"Run by `{record.command}` with `policy.base: {record.base}`: training seed {record.seed}; scenes {first} to "
        f"{first + count - 1} of every task, in rooms {record.rooms} to {record.rooms + count - 1}; {len(pieces)} "
        f"pieces, {sum(piece.seconds for piece in pieces) / 3600:.1f} hours of rollouts, "
        f"{min(piece.created for piece in pieces)[:10]} to {max(piece.created for piece in pieces)[:10]}, on "
        f"{'; '.join(sorted({machine(piece.machine) for piece in pieces}))}.{lacking}"
    )


def write_probe(path: Path, result: ProbeResult) -> None:
    """Success against size, a line a factor; all begin in the own room.

    Args:
        path: The SVG file.
        result: At least one factor at one size.
    """
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")  # inches
    axes = figure.subplots()
    own = result.rate(OWN, 0.0)
    start = [(0.0, own)] if own else []
    for number, factor in enumerate(reversed(result.factors)):
        known = [(size, rate) for size in result.sizes if (rate := result.rate(factor, size))]
        together = factor == TOGETHER
        points = start + known
        axes.plot(
            [size for size, _ in points],
            [rate.value for _, rate in points],
            marker="o",
            linestyle="-" if together or number % 2 else "--",
            linewidth=2.4 if together else 1.4,
            color="black" if together else f"C{number}",
            label=factor,
        )
        if together:
            low, high = ([getattr(rate, end) for _, rate in points] for end in ("low", "high"))
            axes.fill_between([size for size, _ in points], low, high, color="black", alpha=0.1, linewidth=0)
    axes.set_xticks([0.0, *result.sizes], ["own room", *(f"{size:g}" for size in result.sizes)])
    axes.set(xlabel="size, as a multiple of how far rooms go", ylabel="success on the owners' tasks", ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    save_svg(figure, path)
