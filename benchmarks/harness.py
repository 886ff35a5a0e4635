"""What all benchmarks share: their sizes, their command line, and where their rows go."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import typer
from rich.table import Table

from benchmarks.pieces import FOLDER, Pieces
from zk0.console import console, folded_table
from zk0.errors import StageError
from zk0.machine import machine
from zk0.measuring.history import QUICK
from zk0.measuring.rows import Report, Row, read_report, write_report

RESULTS = Path("benchmarks/results.json")
NAMES = (
    "local_training",
    "small_policy",
    "round_overhead",
    "server_memory",
    "wire_bytes",
    "codec_ladder",
    "many_sites",
    "latency",
    "simulation",
    "network",
)

# Further runs of a benchmark at full size, by their options.
VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {"local_training": (("--batch", "8"),)}

Quick = Annotated[bool, typer.Option(help="Small sizes: the whole set takes minutes.")]
Out = Annotated[Path | None, typer.Option(help="Report to add the rows to.", show_default=False)]
Fresh = Annotated[bool, typer.Option(help="Forget what an interrupted run measured.")]
Keep = Annotated[bool, typer.Option(help="Use what an interrupted run measured even if the code has changed.")]
Part = Annotated[bool, typer.Option(hidden=True, help="Leave what was measured to whoever runs this among others.")]


class Plot(TypedDict):
    """Lines or labelled points.

    Attributes:
        title: Stands above it.
        x, y: The axes' labels, with units.
        lines: Label to a list of [x, y], or of [x, y, low, high].
        log_x, log_y: Whether an axis is logarithmic.
        joined: Off for scattered points.
        from_zero: Off where the y axis may begin elsewhere.
    """

    title: str
    x: str
    y: str
    lines: dict[str, list[list[float]]]
    log_x: NotRequired[bool]
    log_y: NotRequired[bool]
    joined: NotRequired[bool]
    from_zero: NotRequired[bool]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        title: Heading of its section in docs/PERFORMANCE.md.
        about: What was compared and how, for a reader; Markdown.
        rows: The comparisons.
        spread: By row name, how far repeats were apart, in words.
        series: Plots by file stem.
        more: Anything else worth keeping, by name.
    """

    title: str
    about: str
    rows: list[Row]
    spread: dict[str, str] = field(default_factory=dict)
    series: dict[str, Plot] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)


def command_of(name: str, **options: object) -> str:
    """The command line that measures again.

    >>> command_of("latency", quick=True, batch=2, device=None)
    'python -m benchmarks.latency --quick --batch 2'
    """
    words = ["python", "-m", f"benchmarks.{name}"]
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return shlex.join(words)


def merged(
    report: Report | None, key: str, detail: Mapping[str, object], rows: list[Row], here: Mapping[str, object]
) -> Report:
    """A report with one benchmark's rows in place of those it had before.

    Args:
        report: The report so far, if there is one.
        key: The benchmark's.
        detail: Kept beside the rows.
        rows: The new rows.
        here: This machine.
    """
    details = dict(report.details) if report else {}
    old = set(details.get(key, {}).get("rows", ()))
    kept = [row for row in report.rows if row.name not in old] if report else []
    details[key] = {**detail, "rows": [row.name for row in rows]}
    return Report(machine=here, created=_now(), rows=(*kept, *rows), details=details)


def run_alone(
    key: str,
    measure: Callable[[Pieces], Outcome],
    *,
    command: str = "",
    quick: bool = False,
    out: Path | None = None,
    fresh: bool = False,
    keep: bool = False,
    part: bool = False,
) -> None:
    """Run a benchmark from its command line, add its rows to the report and print them.

    Args:
        key: The benchmark's name, with its variant where it has any.
        measure: Does the work.
        command: The command line that measures it again.
        quick: At small sizes.
        out: The report; by default benchmarks/results.json, or results/bench-quick.json at small sizes.
        fresh: Forget what an interrupted run measured; small sizes always do.
        keep: See :class:`benchmarks.pieces.Pieces`.
        part: One of several that run as one: its pieces stay until all are through.
    """
    path = out or (QUICK if quick else RESULTS)
    here = machine()
    pieces = Pieces(FOLDER / ("quick" if quick else "full") / key, here, keep, quick, command)
    if fresh or quick:
        pieces.clear()
    console.print(f"[bold]{key}[/]")
    began = time.perf_counter()
    try:
        outcome = measure(pieces)
    except StageError as error:
        console.print(f"error: {error}", style="bold red", markup=False)
        raise typer.Exit(1) from None
    took = {"created": _now(), "seconds": time.perf_counter() - began, "quick": quick, "machine": here}
    report = read_report(path) if path.exists() else None
    write_report(path, merged(report, key, vars(outcome) | took, outcome.rows, here))
    if not part:
        pieces.clear()
    console.print(table_of(outcome.rows))


def plain_app(name: str, about: str, measure: Callable[[Pieces], Outcome]) -> typer.Typer:
    """The command line of a benchmark that has no options of its own.

    Args:
        name: Its module's.
        about: Shown by ``--help``.
        measure: Does the work.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command(help=about)
    def main(
        quick: Quick = False, out: Out = None, fresh: Fresh = False, keep: Keep = False, part: Part = False
    ) -> None:
        command = command_of(name, quick=quick)
        run_alone(name, measure, command=command, quick=quick, out=out, fresh=fresh, keep=keep, part=part)

    return app


def table_of(rows: list[Row]) -> Table:
    """Rows as a table for a terminal."""
    table = folded_table(("what", "ours", "peer", "ratio", "limit", "unit"))
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, number(row.ours), number(row.peer), ratio, number(row.limit), row.unit)
    return table


def number(value: float | None) -> str:
    """A figure as people read it.

    >>> number(0.0123456), number(1234567.0), number(None)
    ('0.01235', '1,234,567', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
