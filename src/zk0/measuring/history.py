"""Earlier quick benchmarks, one line each, and what has become slower since.

The file is the memory; MLflow shows it. Only runs on the same kind of machine are compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.files import read_records, write_text
from zk0.measuring.rows import BenchmarkError, Report, is_rate, parse_report

HISTORY = Path("state/benchmarks/history.jsonl")
QUICK = Path("results/bench-quick.json")
_REMEMBERED = 5


@dataclass(frozen=True)
class Regression:
    """A figure that is worse than it was.

    Attributes:
        name: The row's.
        unit: Its unit.
        now: The figure now.
        before: The median of the last runs on this machine.
        worse_by: Share by which it is worse: 0.5 = half as much again (or, of a rate, two thirds).
        runs: How many earlier runs the median is of.
    """

    name: str
    unit: str
    now: float
    before: float
    worse_by: float
    runs: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.now:.4g} {self.unit}, {self.worse_by:.0%} worse than {self.before:.4g} "
            f"(median of the last {self.runs} on this machine)"
        )


def read_history(root: Path) -> list[Report]:
    """All earlier reports, oldest first.

    Raises:
        BenchmarkError: A line is no report; names file and line.
    """
    path = root / HISTORY
    try:
        found = read_records(path, broken="none")
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise BenchmarkError(f"{error}; delete that line") from error
    return [parse_report(content, f"{path}, line {line}") for line, content in found.items()]


def remember(root: Path, report: Report) -> None:
    """Add a report to the history; one that is there already changes nothing."""
    reports = read_history(root)
    if report not in reports:
        lines = [json.dumps(r.model_dump(mode="json"), allow_nan=False) for r in [*reports, report]]
        write_text(root / HISTORY, "\n".join(lines))


def regressions(report: Report, history: Sequence[Report], margin: float) -> list[Regression]:
    """Rows that are worse than before by more than ``margin``.

    A row is compared with the median of the last five runs on the same machine, so that one disturbed run
    neither raises an alarm later nor hides one. A row with a peer counts as worse only if it has also
    fallen behind its peer by more than the margin: the peer runs in the same call, so a machine that
    is merely busy slows both.

    Args:
        report: The run to judge; if it is in the history, only what came before it counts.
        history: Earlier runs, oldest first, of any machine.
        margin: Share, above 0.
    """
    known = list(history)
    known = known[: known.index(report)] if report in known else known
    earlier = [r for r in known if r.machine_id == report.machine_id]
    found = []
    for row in report.rows:
        before = [old for r in earlier for old in r.rows if (old.name, old.unit) == (row.name, row.unit)]
        before = before[-_REMEMBERED:]
        if not before:
            continue
        usual = statistics.median(old.ours for old in before)
        worse = _worse(row.ours, usual, row.unit)
        ratios = [old.ratio for old in before if old.ratio is not None]
        fell_behind = (
            row.ratio is None or not ratios or _worse(row.ratio, statistics.median(ratios), "ratio/s") > margin
        )
        if worse > margin and fell_behind:
            found.append(Regression(row.name, row.unit, row.ours, usual, worse, len(before)))
    return found


def _worse(now: float, before: float, unit: str) -> float:
    """Share by which ``now`` is worse than ``before``; below 0 where it is better."""
    over, under = (before, now) if is_rate(unit) else (now, before)
    if under == 0:
        return 0.0 if over == 0 else float("inf")
    return over / under - 1
