"""What dvc.yaml expects of a stage is what the stage leaves; and one process at a time in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests_support import REPO

from zk0.errors import StageError
from zk0.params import Params, parse_params
from zk0.pipeline import report
from zk0.pipeline.stages import FOLDERS, alone, run_stage


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


_HOLDS = """
import sys
from pathlib import Path
from zk0.pipeline.stages import alone
with alone(Path(sys.argv[1]), "zk0 federate"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_is_there_until_the_first_dies(tmp_path: Path) -> None:
    lock = tmp_path / ".run" / "stage.lock"
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"

    told = rf"`zk0 evaluate` is refused: `zk0 federate` \(process {first.pid}, since 2"
    with pytest.raises(StageError, match=told), alone(lock, "zk0 evaluate"):
        pass

    first.kill()
    first.communicate()
    with alone(lock, "zk0 evaluate"):
        assert "zk0 evaluate" in lock.read_text()
    with alone(lock, "zk0 prepare"):
        assert "zk0 evaluate" not in lock.read_text()


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    with alone(lock, "zk0 federate"):
        lock.write_text("")
        with pytest.raises(StageError, match="another process is at work"), alone(lock, "zk0 federate"):
            pass
