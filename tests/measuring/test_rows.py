from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zk0.files import write_json
from zk0.measuring.rows import BenchmarkError, Report, Row, machine_id, read_report, row, write_report

KEYS = ["name", "work", "unit", "ours", "peer", "peer_name", "ratio", "limit", "command"]
MACHINE = {"cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": [], "disk_free_bytes": 1}


def report_of(*rows: Row) -> Report:
    return Report(machine=MACHINE, created="2026-11-24T05:00:00+00:00", rows=rows)


def test_ratio_above_one_means_ours_is_better() -> None:
    assert row("step", "w", "s", 2.0, "c", peer=30.0, peer_name="p").ratio == 15.0
    assert row("rate", "w", "steps/s", 30.0, "c", peer=2.0, peer_name="p").ratio == 15.0
    assert row("bytes", "w", "bytes", 4.0, "c", peer=2.0, peer_name="p").ratio == 0.5


def test_row_without_peer_has_no_ratio() -> None:
    alone = row("many sites", "w", "s", 3.0, "c")
    assert (alone.peer, alone.peer_name, alone.ratio, alone.limit) == (None, None, None, None)


def test_nothing_needed_has_no_finite_ratio() -> None:
    assert row("bytes", "w", "bytes", 0.0, "c", peer=2.0, peer_name="p").ratio is None


def test_rows_in_the_file_have_exactly_the_agreed_keys(tmp_path: Path) -> None:
    import json

    write_report(tmp_path / "r.json", report_of(row("step", "w", "s", 2.0, "c", peer=30.0, peer_name="p", limit=1.0)))

    content = json.loads((tmp_path / "r.json").read_text())
    assert list(content["rows"][0]) == KEYS
    assert {"machine", "created", "rows"} <= set(content)
    assert read_report(tmp_path / "r.json").rows[0].ratio == 15.0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ratio": 0.07}, "ratio 0.07 does not follow"),
        ({"peer_name": None}, "go together"),
        ({"ours": -1.0}, "greater than or equal to 0"),
        ({"ours": float("nan")}, "finite number"),
        ({"speedup": 2}, "Extra inputs"),
        ({"unit": ""}, "at least 1 character"),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    content = row("step", "w", "s", 2.0, "c", peer=30.0, peer_name="p").model_dump() | changed
    nan = content["ours"] != content["ours"]
    with pytest.raises((ValueError, BenchmarkError), match=told):
        if nan:
            Row.model_validate(content)
        else:
            write_json(tmp_path / "r.json", {"machine": MACHINE, "created": "now", "rows": [content]})
            read_report(tmp_path / "r.json")


def test_two_rows_of_one_name_are_refused() -> None:
    one = row("step", "w", "s", 2.0, "c")
    with pytest.raises(ValueError, match="more than one row is named 'step'"):
        report_of(one, one)


def test_missing_or_damaged_report_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="make bench"):
        read_report(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"machine": {')
    with pytest.raises(BenchmarkError, match=r"cut.json is not valid JSON.*delete it and measure again"):
        read_report(tmp_path / "cut.json")


def test_machine_id_is_of_what_decides_speed() -> None:
    same = {**MACHINE, "disk_free_bytes": 7, "memory_bytes": 24_000_000_123}
    assert machine_id(MACHINE) == machine_id(same)
    others = [
        {**MACHINE, "cpu": "Epyc"},
        {**MACHINE, "cores": 4},
        {**MACHINE, "memory_bytes": 48_000_000_000},
        {**MACHINE, "gpus": [{"name": "H200"}]},
    ]
    assert len({machine_id(machine) for machine in [MACHINE, *others]}) == 5
