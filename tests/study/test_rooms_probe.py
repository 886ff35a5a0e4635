"""The probe of rooms: stopped once and gone on with at the smallest size; its table and page from made-up pieces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from comparison_params import SMALL

from zk0.data.sim.rooms import FACTORS, Room
from zk0.digests import RESULTS_VERSION
from zk0.errors import StageError
from zk0.params import parse_params, with_changes
from zk0.study import probe
from zk0.study.page import write_page
from zk0.study.probe_page import overview, probe_table
from zk0.study.probe_store import NAME, OWN, TOGETHER, ProbeFolder, ProbePiece, ProbeRecord

SCENES = range(200_000, 200_040)
LOST = {"light": 20, "camera place": 12, "delay": 2}  # scenes at full size, of 40


def test_a_probe_is_gone_on_with_and_meets_its_rooms(recorded_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parse_params(SMALL)
    met: list[Any] = []
    real = probe.drive

    def stopping(loaded: Any, source: str, *given: Any, **more: Any) -> Any:
        if len(met) == 5:
            raise KeyboardInterrupt
        met.append(more["rooms"])
        return real(loaded, source, *given, **more)

    monkeypatch.setattr(probe, "SIZES", (1.0,))
    with monkeypatch.context() as patched, pytest.raises(StageError, match="stopped; complete pieces are kept"):
        patched.setattr(probe, "drive", stopping)
        probe.run(recorded_folder, params)
    pieces = recorded_folder / "results/studies" / NAME / "pieces"
    kept = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    models = list(recorded_folder.glob(".cache/studies/*/models/federated-seed1-*"))

    (result,) = probe.run(recorded_folder, params).results()

    assert len(kept) == 2 and len(models) == 1
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}.items()
    rooms = [Room.of(number, {"camera place": 1.0}) for number in range(probe.FIRST_ROOM, probe.FIRST_ROOM + 3)]
    assert met[:4] == [[], [], rooms, rooms]
    assert result.missing == 0 and set(result.pieces) == {(OWN, 0.0), *((f, 1.0) for f in (*FACTORS, TOGETHER))}
    assert result.record.tasks == ("sim:push-red-cube-left", "sim:press-magenta-disc")
    assert all(list(found) == [200_000, 200_001, 200_002] for found in result.pieces[OWN, 0.0].successes.values())
    assert list(recorded_folder.glob(".cache/studies/*/models/federated-seed1-*")) == models
    assert (result.record.base, result.record.seed) == ("random:nano", 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.sites": {"cups": "local:cups"}}, "data.sites must be sim: sources; found local:cups"),
        ({"study.scenes": 0}, "the probe needs closed-loop scenes; study.scenes is 0"),
    ],
)
def test_what_no_room_can_be_made_for_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(StageError, match=said):
        probe.run(tmp_path, with_changes(parse_params(SMALL), changes))


@pytest.fixture
def made(tmp_path: Path) -> ProbeFolder:
    """Two models: all scenes solved in the own room, some lost by factor, half as many at half size."""
    folder = ProbeFolder(tmp_path / "results" / "studies" / NAME)
    tasks = ("sim:push-red-cube-left", "sim:press-magenta-disc")
    for base in ("models/a", "models/b"):
        files: dict[str, dict[float, str]] = {}
        for factor, size in ((OWN, 0.0), *((f, s) for f in (*LOST, TOGETHER) for s in (0.5, 1.0))):
            name = f"{base[-1]}-{factor}-{size}.json"
            files.setdefault(factor, {})[size] = name
            lost = round(LOST.get(factor, 30) * size)
            solved = {task: {scene: n >= lost for n, scene in enumerate(SCENES)} for task in tasks}
            told = {"seed": 1, "factor": factor, "size": size, "digest": "d", "successes": solved}
            folder.write(
                name, ProbePiece.model_validate(told | {"seconds": 36.0, "created": "2026-11-29", "machine": {}})
            )
        folder.describe(
            ProbeRecord(
                command="zk0 study rooms-probe",
                quick=False,
                base=base,
                seed=1,
                scenes=(SCENES.start, len(SCENES)),
                rooms=probe.FIRST_ROOM,
                tasks=tasks,
                files=files,
                params={},
                results_version=RESULTS_VERSION,
            )
        )
    return folder


def test_what_costs_most_comes_first_and_all_together_last(made: ProbeFolder) -> None:
    first, second = made.results()
    _, rows = probe_table(first)

    assert (first.record.base, second.record.base) == ("models/a", "models/b")
    assert [row[0] for row in rows] == [OWN, "light", "camera place", "delay", TOGETHER]
    assert [row[1].split()[0] for row in rows] == ["100%", "75%", "85%", "98%", "62%"]
    assert [row[2].split()[0] for row in rows] == ["–", "50%", "70%", "95%", "25%"]
    assert [row[3].split()[0] for row in rows] == ["–", "−50.0", "−30.0", "−5.0", "−75.0"]


def test_the_page_has_a_chart_for_each_model_and_says_what_lacks(made: ProbeFolder, tmp_path: Path) -> None:
    (made.folder / "pieces" / "b-light-1.0.json").unlink()

    written = write_page(tmp_path)

    page = (tmp_path / "docs" / "RESULTS.md").read_text()
    assert "## Rooms, probed" in page and "### From models/b" in page and "**1 pieces are still to be made.**" in page
    assert "earlier state" not in page
    charts = [path.name for path in written[:-1]]
    assert charts == ["rooms-probe-models-a.svg", "rooms-probe-models-b.svg"]
    assert "camera place" in (tmp_path / "docs/images/results" / charts[0]).read_text()
    assert [table.caption for table in overview(made)] == [None, "1 pieces are still to be made"]
    shutil.rmtree(made.folder)
    with pytest.raises(StageError, match="holds no piece of any study"):
        write_page(tmp_path)
