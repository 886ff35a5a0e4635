from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.performance import IMAGES, PAGE, write_page
from zk0.measuring.rows import Report, Row, row

MACHINE: dict[str, Any] = {
    "cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": [], "python": "3.12.1"
}  # fmt: skip
PLOT = {
    "title": "Time by sites",
    "x": "sites",
    "y": "seconds",
    "lines": {"ours": [[1.0, 2.0], [10.0, 20.0]], "range": [[1.0, 2.0, 1.5, 2.5]]},
    "log_x": True,
}


def report(plots: dict[str, Any] | None = None) -> Report:
    rows: tuple[Row, ...] = (
        row("step | warm", "one step", "s", 0.0123, "python -m benchmarks.latency", peer=1.5, peer_name="LeRobot"),
        row("many", "a run", "s", 12345.6, "python -m benchmarks.many_sites", limit=1.0),
        row("slow", "one step", "s", 3.0, "python -m benchmarks.latency", peer=1.5, peer_name="LeRobot"),
    )
    common = {"about": "How.", "created": "2026-11-24T05:00:00+00:00", "machine": MACHINE, "spread": {"s": "1 to 2"}}
    details = {
        "many_sites": {
            **common,
            "title": "Sites",
            "rows": ["many"],
            "series": {"sites": PLOT} if plots is None else plots,
        },
        "latency": {**common, "title": "Latency", "rows": ["step | warm", "slow"]},
    }
    return Report(machine=MACHINE, created="2026-11-24T05:00:00+00:00", rows=rows, details=details)


def test_page_shows_every_row_with_command_machine_and_date(tmp_path: Path) -> None:
    write_page(tmp_path, report())

    text = (tmp_path / PAGE).read_text()
    assert "| step \\| warm | one step | 0.0123 | 1.5 (LeRobot) | 122 |" in text
    assert "| many | a run | 12,346 | none known |  | 1 | s |" in text
    assert text.index("## Sites") < text.index("## Latency")
    assert "2026-11-24, Xeon, 2 cores, 24 GB, no GPU, Python 3.12.1" in text
    for shown in report().rows:
        assert f"`{shown.command}`" in text


def test_plots_are_pictures_and_the_same_every_time(tmp_path: Path) -> None:
    write_page(tmp_path, report())
    first = {path.name: path.read_bytes() for path in (tmp_path / IMAGES).iterdir()}
    write_page(tmp_path, report())

    assert first == {path.name: path.read_bytes() for path in (tmp_path / IMAGES).iterdir()}
    assert set(first) == {"ratios.svg", "sites.svg"}
    for content in first.values():
        assert ElementTree.fromstring(content).tag.endswith("svg")
    assert b"Time by sites" in first["sites.svg"]
    assert b"122x" in first["ratios.svg"] and b"0.5x" in first["ratios.svg"]


def test_plots_nothing_refers_to_are_removed(tmp_path: Path) -> None:
    write_page(tmp_path, report())
    write_page(tmp_path, report(plots={}))

    assert {path.name for path in (tmp_path / IMAGES).iterdir()} == {"ratios.svg"}
    assert "sites.svg" not in (tmp_path / PAGE).read_text()


def test_committed_page_is_that_of_the_committed_results(tmp_path: Path) -> None:
    """Where results are committed, the page beside them is what they give."""
    from benchmarks.harness import RESULTS
    from zk0.measuring.rows import read_report

    root = Path(__file__).parents[2]
    if not (root / RESULTS).exists():
        return
    write_page(tmp_path, read_report(root / RESULTS))
    assert (root / PAGE).read_text() == (tmp_path / PAGE).read_text()
