"""`zk0 compare --anew`: checkpoints of any run are judged on this project's data and scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.console import console
from zk0.errors import StageError
from zk0.models.compare import compare, judge_anew
from zk0.params import Params
from zk0.policy.checkpoint import save_checkpoint
from zk0.study.project import StudyProject


def test_checkpoints_meet_the_same_scenes(
    project: StudyProject, study_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 200)
    folder = tmp_path / "checkpoint"
    save_checkpoint(project.policy(study_params).start, folder)

    with console.capture() as said:
        compare(project.root, study_params, str(folder), "base", anew=True)

    told = said.get()
    assert f"success_rate: {folder} against the base policy" in told
    shown = [line.split("│")[1].strip() for line in told.split("action_error_deg")[0].splitlines() if "│" in line]
    assert shown == ["red", "disc", "purple", "sites' tasks", "unseen tasks"]
    with pytest.raises(StageError, match="is no model"):
        compare(project.root, study_params, str(tmp_path / "absent"), "base", anew=True)


def test_what_is_judged_is_as_evaluation_json_has_it(
    project: StudyProject, study_params: Params, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(project.policy(study_params).start, folder)

    found, labels = judge_anew(project.root, study_params, str(folder), "base")

    assert labels == {"global": str(folder), "base": "the base policy"}
    assert set(found.tasks) == {"red", "disc", "purple"}
    red = found.tasks["red"]
    assert red.role == "site" and red.trained.rollouts == 2
    assert sorted(red.trained.outcomes) == ["100000", "100001"]
    assert {check.name for check in found.safety.trained.checks} >= {"steps cut, rollouts"}
