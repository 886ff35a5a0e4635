"""A federation that is killed goes on and ends at the same model, bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests_support import Project

from zk0.digests import digest_file


def _copy_with_data(finished: Project, root: Path) -> Project:
    """A project with the same data and params, but no rounds."""
    ignored = shutil.ignore_patterns("state", "checkpoints", "cache", "tmp", "mlruns", "mlflow.db", ".git")
    shutil.copytree(finished.root, root, symlinks=True, ignore=ignored)
    shutil.rmtree(root / "results" / "federation")
    return Project(root, finished.env)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.release), signal.SIGINT])
def test_stopped_in_round_two(finished: Project, tmp_path: Path, how: signal.Signals) -> None:
    project = _copy_with_data(finished, tmp_path / "project")
    events = project.root / "results/federation/events.jsonl"
    process = subprocess.Popen(
        ["zk0", "federate"],
        cwd=project.root,
        env=project.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job starts with SIGINT ignored, and so would this child of one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    # Round 1 is saved while round 2 runs: a kill before that goes on after round 0, to the same model.
    while not (events.exists() and all(said in events.read_text() for said in ("round 1 saved", "round 2 of 2"))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-2000:]
        time.sleep(0.02)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (project.root / "checkpoints").exists()
    if how == signal.SIGINT:
        assert "goes on from the last one" in output and "Traceback" not in output

    resumed = project.run("zk0", "federate").stdout

    assert "continuing after round 1" in resumed
    run = json.loads((project.root / "results/federation/run.json").read_text())
    assert run["resumed_at_rounds"] == [1]
    for name in ("best", "last"):
        ours = project.root / "checkpoints" / name / "model.safetensors"
        undisturbed = finished.root / "checkpoints" / name / "model.safetensors"
        assert digest_file(ours) == digest_file(undisturbed)
