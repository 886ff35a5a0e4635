"""The probe of rooms, for a terminal and on docs/RESULTS.md: success by factor and size, as curves and tables."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from zk0.console import folded_table
from zk0.evaluation.paired import Estimate
from zk0.reporting.format import NOTHING, machine
from zk0.study.plots import write_curves
from zk0.study.probe_store import FULL, NAME, OWN, ProbeFolder, ProbeResult, slug
from zk0.study.results_store import STUDIES
from zk0.study.tables import Rows, difference_text, estimate_text, markdown

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
        size, success = "size, as a multiple of how far rooms go (0: own room)", "success on the owners' tasks"
        write_curves(plots[-1], _curves(result), size, success, doubling=False)
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
        tables.append(folded_table(*probe_table(result), title=f"Rooms, from {result.record.base}", caption=lacking))
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


def _curves(result: ProbeResult) -> dict[str, list[tuple[float, Estimate]]]:
    """Success by size, of all together and of each factor; all begin in the own room."""
    found = {}
    for factor in dict.fromkeys([*result.factors[-1:], *result.factors]):
        points = [(OWN, 0.0), *((factor, size) for size in result.sizes)]
        found[factor] = [(size, rate) for of, size in points if (rate := result.rate(of, size))]
    return found
