from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zk0.measuring.history import HISTORY, read_history, regressions, remember
from zk0.measuring.rows import BenchmarkError, Report, row

MACHINE: dict[str, Any] = {"cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": []}
MARGIN = 0.25


def run(ours: float, peer: float | None = None, *, day: int = 1, unit: str = "s", cpu: str = "Xeon") -> Report:
    figure = row("step", "work", unit, ours, "command", peer=peer, peer_name="peer")
    return Report(machine={**MACHINE, "cpu": cpu}, created=f"2026-11-{day:02}T05:00:00+00:00", rows=(figure,))


def test_nothing_is_worse_than_nothing() -> None:
    assert regressions(run(9.0), [], MARGIN) == []


def test_worse_by_more_than_the_margin_is_flagged() -> None:
    assert regressions(run(1.2, day=2), [run(1.0)], MARGIN) == []
    (found,) = regressions(run(1.3, day=2), [run(1.0)], MARGIN)
    assert (found.name, found.before, found.runs) == ("step", 1.0, 1)
    assert found.worse_by == pytest.approx(0.3)
    assert "30% worse" in str(found)


def test_a_rate_is_worse_when_it_falls() -> None:
    history = [run(10.0, unit="steps/s")]
    assert regressions(run(20.0, day=2, unit="steps/s"), history, MARGIN) == []
    assert len(regressions(run(5.0, day=2, unit="steps/s"), history, MARGIN)) == 1


def test_other_machines_do_not_count() -> None:
    assert regressions(run(9.0, day=2), [run(1.0, cpu="Epyc")], MARGIN) == []


def test_one_odd_run_neither_alarms_nor_hides() -> None:
    history = [run(1.0, day=1), run(1.0, day=2), run(9.0, day=3)]
    assert regressions(run(1.1, day=4), history, MARGIN) == []
    assert len(regressions(run(2.0, day=4), history, MARGIN)) == 1


def test_only_the_last_five_count() -> None:
    history = [*(run(1.0, day=d) for d in range(1, 9)), *(run(3.0, day=d) for d in range(9, 14))]
    assert regressions(run(3.1, day=14), history, MARGIN) == []


def test_a_busy_machine_slows_both_and_is_no_regression() -> None:
    history = [run(1.0, peer=10.0)]
    assert regressions(run(2.0, peer=20.0, day=2), history, MARGIN) == []
    assert len(regressions(run(2.0, peer=10.0, day=2), history, MARGIN)) == 1


def test_a_run_in_its_own_history_is_compared_with_what_was_before() -> None:
    first, second, third = run(1.0, day=1), run(2.0, day=2), run(2.0, day=3)
    assert len(regressions(second, [first, second, third], MARGIN)) == 1


def test_from_nothing_to_something_is_worse() -> None:
    (found,) = regressions(run(5.0, day=2, unit="bytes"), [run(0.0, unit="bytes")], MARGIN)
    assert found.worse_by == float("inf")
    assert str(found)


def test_history_is_kept_once_and_in_order(tmp_path: Path) -> None:
    for report in (run(1.0, day=1), run(2.0, day=2), run(1.0, day=1)):
        remember(tmp_path, report)
    assert [r.rows[0].ours for r in read_history(tmp_path)] == [1.0, 2.0]


def test_damaged_history_names_the_line(tmp_path: Path) -> None:
    remember(tmp_path, run(1.0))
    path = tmp_path / HISTORY
    path.write_text(path.read_text() + '{"machine": \n')
    with pytest.raises(BenchmarkError, match=r"history.jsonl, line 2 is not valid JSON: .*; delete that line"):
        read_history(tmp_path)
