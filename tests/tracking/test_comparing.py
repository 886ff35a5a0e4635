"""From what a person calls a model to numbers in a table: `zk0 compare` and `zk0 runs`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.console import console
from zk0.errors import StageError
from zk0.params import PromotionParams
from zk0.records.files import RecordError
from zk0.tracking import TrackingError
from zk0.tracking.project import track
from zk0.tracking.registry import read_checkpoint, read_scores

NAME = "zk0-smolvla"
PARAMS_FILE = """
policy: {base: "random:nano"}
data: {sites: {red-cube: "sim:push-red-cube-left"}}
"""


@pytest.fixture
def two(tracked: Path, files: Any, spread: Callable[..., list[bool]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1, the champion, succeeds in half of the scenes; version 2, refused, in no more, and unsafely."""
    for day, share, safe in ((1, 0.5, True), (2, 0.52, False)):
        files.next_run(tracked, day + 1)
        tasks = {task: (spread(0.1), spread(share)) for task in ("red-cube", "purple-cylinder")}
        files.evaluated(tracked, tasks, safe=safe)
        track(tracked, "zk0", NAME, promotion=PromotionParams())
    Path("params.yaml").write_text(PARAMS_FILE)
    monkeypatch.setattr(console, "width", 200)
    return tracked


def run(*words: str) -> str:
    return CliRunner().invoke(app, list(words), catch_exceptions=False).output


def test_two_versions_task_by_task_and_overall(two: Path) -> None:
    told = run("compare", "@challenger", "@champion")

    assert "success_rate: version 3 (@challenger) against version 2 (@champion)" in told
    (red,) = [line for line in told.splitlines() if "red-cube" in line][:1]
    assert "52.0%" in red and "50.0%" in red and "+2.0 points (" in red and "50" in red
    assert "sites' tasks" in told and "unseen tasks" in told
    assert "action_error_deg" in told and "2.83 deg" not in told.split("action_error_deg")[0]
    assert "safety check of version 3 (@challenger) failed: joint speed, rollouts" in told
    assert "safety check of version 2 (@champion) passed" in told


def test_a_version_against_the_base_and_a_folder(two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(two / "results", folder / "results")

    assert "+42.0 points" in run("compare", "3", "base")
    assert "+0.0 points" in run("compare", "checkpoints/best", str(folder))
    assert read_scores(two, NAME, str(folder / "results/evaluation.json")).digest == read_scores(two, NAME, "3").digest


def test_scenes_that_do_not_match_are_refused_with_what_to_do(two: Path) -> None:
    file = two / "results/evaluation.json"
    content = json.loads(file.read_text())
    for task in content["tasks"].values():
        task["digest"] = "grown"
        for model in ("base", "global"):
            task[model]["outcomes"] = {str(int(seed) + 100_000): won for seed, won in task[model]["outcomes"].items()}
    (two / "other.json").write_text(json.dumps(content))

    refused = CliRunner().invoke(app, ["compare", "2", "other.json"])

    assert isinstance(refused.exception, StageError)
    said = str(refused.exception)
    assert "version 2 met scenes 100000 to 100049, other.json 200000 to 200049: none shared" in said
    assert "recordings red-cube-digest; other.json met recordings grown" in said
    assert "`zk0 compare --anew` judges both again" in said


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("9", "'zk0-smolvla' has no version 9; there are: 1, 2, 3"),
        ("1", "version 1, was never evaluated"),
        ("@champoin", r"no alias '@champoin'; there are: @challenger \(version 3\), @champion \(version 2\)"),
        ("nowhere", "'nowhere' is no model: expected a version's number, @ALIAS, base"),
        ("mlruns", "mlruns holds no evaluation.json, and results/evaluation.json judges other models"),
        ("broken.json", "broken.json lacks 'models', 'overall', 'safety'; run `zk0 evaluate` again"),
        ("cut.json", "cut.json is not valid JSON.*run `zk0 evaluate` again"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_named(two: Path, model: str, said: str) -> None:
    (two / "broken.json").write_text('{"tasks": {}}')
    (two / "cut.json").write_text("{")

    with pytest.raises(StageError, match=said):
        read_scores(two, NAME, model)


def test_the_checkpoint_of_a_version(two: Path) -> None:
    folder, named = read_checkpoint(two, NAME, "@champion")

    assert (folder / "model.safetensors").is_file() and named == "version 2 (@champion)"
    assert read_checkpoint(two, NAME, str(folder)) == (folder, str(folder))
    with pytest.raises(TrackingError, match="'elsewhere' is no model: expected a version's number"):
        read_checkpoint(two, NAME, "elsewhere")


def test_base_without_an_evaluation(tracked: Path) -> None:
    with pytest.raises(RecordError, match=r"evaluation.json is missing; `zk0 evaluate` makes it"):
        read_scores(tracked, NAME, "base")


def test_runs_in_a_table(two: Path) -> None:
    told = run("runs")

    header, rows = told.splitlines()[1], [line for line in told.splitlines() if "fedavg-" in line]
    assert [name for name in ("run", "codec", "seen", "up MB", "safe", "version", "rounds") if name not in header] == []
    assert "epsilon" not in header
    assert len(rows) == 4  # three runs, and why one was refused
    assert "3 (challenger)" in rows[0] and "no" in rows[0]
    assert "2 (champion)" in rows[1] and "0% > 75%" in rows[1]
    assert "the safety check failed: joint speed, rollouts; not shown to be better than version 2" in told


def test_a_narrow_terminal_shows_what_decides(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 80)

    rows = [line for line in run("runs").splitlines() if "fedavg-" in line]

    assert "2 (champion)" in rows[1] and "0% > 75%" in rows[1] and "fedavg-01234567" in rows[1]


def test_without_runs_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS_FILE)

    assert "no runs yet; `zk0 track`" in run("runs")
