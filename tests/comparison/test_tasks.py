"""The study's command and tasks, in a project folder, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from comparison_params import SMALL
from prefect.logging import disable_run_logger

from tasks.study import plan_study, run_arm
from zk0.comparison.pieces import STUDIES, StudyFolder
from zk0.errors import StageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with params and nothing else."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(yaml.safe_dump(SMALL))
    return root


def test_an_arm_is_run_and_kept(folder: Path) -> None:
    arms = plan_study.fn(folder, "comparison", True)

    with disable_run_logger():
        run_arm.fn(folder, "comparison", arms[0], True)

    kept = StudyFolder(folder / STUDIES / "comparison-quick")
    record = kept.record()
    assert [arm.name for arm in record.arms] == arms and arms[0] == "base"
    made = {arm.name: list(pieces) for arm, pieces in kept.pieces(record) if pieces}
    assert made == {"base": [0]}
    assert str(folder) not in (kept.folder / "study.json").read_text()
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "results", ".cache"}


def test_a_failing_arm_says_why(folder: Path) -> None:
    with disable_run_logger(), pytest.raises(StageError, match=r"(?s)arm 'bose' .* did you mean 'base'\?"):
        run_arm.fn(folder, "comparison", "bose", True)
    with pytest.raises(ValueError, match="did you mean 'comparison'"):
        plan_study.fn(folder, "comparisons", True)


def test_the_page_command_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zk0", "study", "page"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1 and "holds no piece of any study" in done.stdout
