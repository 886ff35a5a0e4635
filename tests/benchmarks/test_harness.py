from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app, checked
from benchmarks.harness import NAMES, Outcome, merged, run_alone
from benchmarks.pieces import Pieces
from zk0.measuring.rows import BenchmarkError, Report, read_report, row

MACHINE: dict[str, Any] = {"cpu": "Xeon", "cores": 2, "memory_bytes": 24_000_000_000, "gpus": []}


def outcome(*names: str) -> Outcome:
    rows = [row(name, "work", "s", 2.0, "command", peer=4.0, peer_name="peer") for name in names]
    return Outcome(title="Title", about="About.", rows=rows)


def run(key: str, measured: Outcome, out: Path, quick: bool = False, part: bool = False) -> None:
    run_alone(key, lambda pieces: measured, quick=quick, out=out, fresh=False, keep=False, part=part)


def test_rows_of_one_benchmark_take_the_place_of_its_own_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "r.json"
    run("latency", outcome("a", "b"), out)
    run("many_sites", outcome("c"), out)

    run("latency", outcome("a", "d"), out)

    report = read_report(out)
    assert sorted(r.name for r in report.rows) == ["a", "c", "d"]
    assert report.details["latency"]["rows"] == ["a", "d"]
    assert report.details["many_sites"]["rows"] == ["c"]


def test_a_name_taken_by_another_benchmark_is_refused() -> None:
    first = merged(None, "latency", {}, outcome("a").rows, MACHINE)
    with pytest.raises(ValueError, match="more than one row is named 'a'"):
        merged(first, "many_sites", {}, outcome("a").rows, MACHINE)


def test_a_benchmark_that_fails_leaves_the_report_and_its_pieces(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "r.json"
    run("latency", outcome("a"), out)
    before = out.read_text()

    def fails_later(pieces: Pieces) -> Outcome:
        pieces.get("first", lambda: 1)
        raise BenchmarkError("the peer is missing; install it")

    import typer

    with pytest.raises(typer.Exit):
        run_alone("latency", fails_later, quick=False, out=out, fresh=False, keep=False, part=False)

    assert out.read_text() == before
    assert "the peer is missing; install it" in capsys.readouterr().out
    assert list((tmp_path / ".cache/bench/pieces/full/latency").glob("*.json"))


@pytest.mark.parametrize("part", [True, False])
def test_pieces_of_one_among_several_stay(tmp_path: Path, monkeypatch: Any, part: bool) -> None:
    """Until all are through: an interrupted set would otherwise measure the finished ones again."""
    monkeypatch.chdir(tmp_path)

    def measure(pieces: Pieces) -> Outcome:
        pieces.get("first", lambda: 1)
        return outcome("a")

    run_alone("latency", measure, quick=False, out=tmp_path / "r.json", fresh=False, keep=False, part=part)

    assert bool(list((tmp_path / ".cache/bench/pieces/full").glob("latency/*.json"))) is part


def test_a_damaged_report_is_not_overwritten(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "r.json"
    out.write_text("{")
    with pytest.raises(BenchmarkError, match="delete it and measure again"):
        run("latency", outcome("a"), out)
    assert out.read_text() == "{"


def test_pieces_are_measured_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure(number: int) -> dict[str, int]:
        calls.append(number)
        return {"value": number}

    first = Pieces(tmp_path, MACHINE)
    assert first.get("p, 1/2", measure, 7) == {"value": 7}
    again = Pieces(tmp_path, MACHINE)
    assert again.get("p, 1/2", measure, 8) == {"value": 7}
    assert calls == [7]


def test_pieces_of_another_machine_are_measured_anew(tmp_path: Path) -> None:
    Pieces(tmp_path, MACHINE).get("p", lambda: 1)
    assert Pieces(tmp_path, {**MACHINE, "cores": 4}).get("p", lambda: 2) == 2


def test_pieces_of_other_code_are_measured_anew_unless_kept(tmp_path: Path, monkeypatch: Any) -> None:
    Pieces(tmp_path, MACHINE).get("p", lambda: 1)
    monkeypatch.setattr("benchmarks.pieces.code_digest", lambda: "changed")
    assert Pieces(tmp_path, MACHINE, keep=True).get("p", lambda: 2) == 1
    assert Pieces(tmp_path, MACHINE).get("p", lambda: 2) == 2


def test_a_piece_cut_off_is_measured_anew(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, MACHINE)
    pieces.get("p", lambda: 1)
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text()[:20])
    assert pieces.get("p", lambda: 2) == 2


def test_unknown_benchmark_suggests_the_nearest(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["--only", "latencies"])
    assert done.exit_code == 1
    assert "there is no benchmark 'latencies'" in done.output
    assert "latency" in done.output


def test_only_keeps_the_order() -> None:
    assert checked(["latency", "local_training"]) == ["local_training", "latency"]
    assert checked(None) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs_alone_and_says_how(name: str) -> None:
    import importlib

    module = importlib.import_module(f"benchmarks.{name}")
    done = CliRunner().invoke(module.app, ["--help"])
    assert done.exit_code == 0
    assert "--quick" in done.output
    assert name == module.NAME


def test_report_keeps_the_machine_of_each_benchmark() -> None:
    first = merged(None, "latency", {"machine": {"cpu": "old"}}, outcome("a").rows, MACHINE)
    second: Report = merged(first, "many_sites", {"machine": MACHINE}, outcome("b").rows, MACHINE)
    assert second.details["latency"]["machine"] == {"cpu": "old"}
