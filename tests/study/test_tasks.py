"""The study's command and tasks, in a project folder, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks.study import plan_study, run_arm
from zk0.errors import StageError
from zk0.params import load_params
from zk0.records.comparison import Comparison
from zk0.records.files import read
from zk0.records.paths import COMPARISON
from zk0.study.project import StudyProject
from zk0.study.results_store import STUDIES, StudyFolder
from zk0.study.run import run
from zk0.study.studies import study_named


def test_an_arm_is_run_and_kept(recorded_folder: Path) -> None:
    """By `zk0 study comparison` with --quick and --only."""
    arms = plan_study.fn(recorded_folder, "comparison", True)

    with disable_run_logger():
        run_arm.fn(recorded_folder, "comparison", arms[0], True)

    kept = StudyFolder(recorded_folder / STUDIES / "comparison-quick")
    record = kept.record()
    assert [arm.name for arm in record.arms] == arms and arms[0] == "base"
    made = {arm.name: list(pieces) for arm, pieces in kept.pieces(record) if pieces}
    assert made == {"base": [0]}
    assert str(recorded_folder) not in (kept.folder / "study.json").read_text()
    assert not (recorded_folder / COMPARISON).exists()  # small sizes compare nothing
    assert {path.name for path in recorded_folder.iterdir()} == {"params.yaml", "results", ".cache"}


def test_a_whole_comparison_leaves_what_a_report_shows(recorded_folder: Path, project: StudyProject) -> None:
    study = study_named("comparison", load_params(recorded_folder / "params.yaml"))

    run(recorded_folder, study, "base")

    told = read(recorded_folder, Comparison)
    assert [arm.name for arm in told.arms] == ["base"] and told.missing == sum(len(study.seeds) for _ in study.arms[1:])
    assert told.revisions == {manifest.site: manifest.revision for manifest in project.sites}


def test_a_failing_arm_says_why(recorded_folder: Path) -> None:
    with disable_run_logger(), pytest.raises(StageError, match=r"(?s)arm 'bose' .* did you mean 'base'\?"):
        run_arm.fn(recorded_folder, "comparison", "bose", True)
    with pytest.raises(ValueError, match="did you mean 'comparison'"):
        plan_study.fn(recorded_folder, "comparisons", True)


def test_the_page_command_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zk0", "study", "page"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1 and "holds no piece of any study" in done.stderr
