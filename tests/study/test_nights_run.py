"""A week of nightly runs at the smallest size, by the pipeline's own stages, stopped once and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from nights_params import WEEK

from zk0.errors import StageError
from zk0.params import parse_params
from zk0.study import nights
from zk0.tracking.registry import champion

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


def test_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parse_params(WEEK)
    real = nights.evaluate.run
    seen: list[int] = []

    def stopping(*given: object) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(StageError, match="stopped; complete nights are kept"):
        patched.setattr("zk0.study.nights.evaluate.run", stopping)
        nights.run(tmp_path, params)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results/studies/nights/pieces").iterdir()}
    assert len(kept) == 4  # the base and three nights

    folder = nights.run(tmp_path, params)

    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in (folder.folder / "pieces").iterdir()}.items()
    week = folder.made(folder.record().files[1])
    assert [piece.night for piece in week] == list(range(8))
    assert week[3].outcome == "unchanged" and not week[3].run and week[3].seconds["night"] < 60
    assert all(piece.outcome in ("promoted", "refused") and piece.run for piece in week[1:] if piece.night != 3)
    assert week[6].unfit.keys() == {"red-a"} and "states reach" in week[6].unfit["red-a"]
    assert all(not piece.unfit for piece in week if piece.night != 6)
    assert "red-a" not in week[6].episodes and week[7].episodes["red-a"] > week[5].episodes["red-a"]
    trained = [piece for piece in week if piece.run]
    assert all(piece.successes.keys() == {"tonight", "from base", "pooled"} for piece in trained)
    assert all(len(scenes) == 2 for piece in trained for scenes in piece.successes["tonight"].values())
    promoted = [piece for piece in week if piece.outcome == "promoted"]
    assert promoted and not promoted[0].reasons
    later = next(piece for piece in trained if piece.night > promoted[0].night)
    assert later.start != week[1].start and later.against == f"version {promoted[0].version}"
    (root,) = (tmp_path / ".cache/studies").glob("*/weeks/*")
    assert champion(root, params.tracking.model) is not None
    assert not list(root.glob("from-base"))
