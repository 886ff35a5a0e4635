"""report: one HTML file that shows a run."""

from __future__ import annotations

from pathlib import Path

from zk0.console import console
from zk0.params import Params
from zk0.records.paths import REPORT
from zk0.reporting.report import write_report


def run(root: Path, params: Params) -> None:  # noqa: ARG001 - every stage is called alike
    """Write results/report.html from what the other stages left."""
    write_report(root, root / REPORT)
    console.print(f"report in {root / REPORT}")
