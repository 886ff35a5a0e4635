"""Four nights of the week at the smallest size, by the pipeline's own stages, stopped once and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nights_params import WEEK

from zk0.errors import StageError
from zk0.params import Params, parse_params
from zk0.study import nights, weeks
from zk0.study.week import Event, Week, week_of
from zk0.tracking.registry import champion

pytestmark = [pytest.mark.release, pytest.mark.timeout(1200)]
NIGHTS: dict[Event, float] = {"begin": 0.5, "nothing": 0.5, "spoil": 0.75, "lie": 1.0}  # share of the episodes


def _shorter(params: Params, seed: int) -> Week:
    """The whole week takes hours where it is deployed, and has the same four kinds of night in it."""
    week = week_of(params, seed)
    found = {night.event: replace(night, sites=tuple(week.owners)) for night in week.nights}
    chosen = [replace(found[event], number=n, share=share) for n, (event, share) in enumerate(NIGHTS.items(), 1)]
    return replace(week, nights=tuple(chosen))


def test_nights_of_the_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parse_params(WEEK)
    monkeypatch.setattr("zk0.study.weeks.week_of", _shorter)
    real = nights.evaluate.run
    seen: list[int] = []

    def stopping(*given: object) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(StageError, match="stopped; complete nights are kept"):
        patched.setattr("zk0.study.nights.evaluate.run", stopping)
        weeks.run(tmp_path, params)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results/studies/nights/pieces").iterdir()}
    assert len(kept) == 3  # the base and two nights; the third had trained

    folder = weeks.run(tmp_path, params)

    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in (folder.folder / "pieces").iterdir()}.items()
    _, begun, nothing, spoiled, lie = week = folder.made(folder.record().files[1])
    assert [piece.night for piece in week] == list(range(5))
    assert nothing.outcome == "unchanged" and not nothing.run and nothing.seconds["night"] < 60
    trained = [begun, spoiled, lie]
    assert all(piece.outcome in ("promoted", "refused") and piece.run for piece in trained)
    assert spoiled.unfit.keys() == {"red-a"} and "states reach" in spoiled.unfit["red-a"]
    assert not begun.unfit and not lie.unfit
    assert "red-a" not in spoiled.episodes and lie.episodes["red-a"] > begun.episodes["red-a"]
    assert all(piece.successes.keys() == {"tonight", "from base", "pooled"} for piece in trained)
    assert all(len(scenes) == 2 for piece in trained for scenes in piece.successes["tonight"].values())
    assert begun.outcome == "promoted" and not begun.reasons
    assert spoiled.start != begun.start and spoiled.against == f"version {begun.version}"
    (root,) = (tmp_path / ".cache/studies").glob("*/weeks/*")
    assert champion(root, params.tracking.model) is not None
    assert not list(root.glob("from-base"))
