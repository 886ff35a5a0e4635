"""What dvc.yaml expects of a stage is what the stage leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests_support import REPO

from zk0.params import Params, parse_params
from zk0.pipeline import report
from zk0.pipeline.stages import FOLDERS, run_stage


def test_folders_are_those_of_the_pipeline() -> None:
    """DVC takes what has no ending for a folder or a file alike; here a folder has none."""
    expected = {
        stage: {str(out) for out in content.get("outs", []) if not Path(str(out)).suffix}
        for stage, content in yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"].items()
    }

    assert {stage: set(folders) for stage, folders in FOLDERS.items()} == {s: f for s, f in expected.items() if f}


def test_a_stage_leaves_its_folders_and_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FOLDERS, "report", ("results/one", "results/two"))

    def wrote(root: Path, params: Params) -> None:
        (root / "results" / "one").mkdir(parents=True)
        (root / "results" / "one" / "said").write_text("it")

    monkeypatch.setattr(report, "run", wrote)

    run_stage(
        "report",
        tmp_path,
        parse_params({"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:push-red-cube-left"}}}),
    )

    assert (tmp_path / "results" / "one" / "said").read_text() == "it"
    assert list((tmp_path / "results" / "two").iterdir()) == []
