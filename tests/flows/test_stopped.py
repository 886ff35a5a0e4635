"""Ctrl-C in the demo: one sentence, a flow that is Cancelled, and nothing left running."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from tests_support import make_project

pytestmark = pytest.mark.services


def running_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.parametrize(("moment", "kept"), [("zk0 prepare", "what is complete"), ("round 3 of 8", "round [2-7]")])
def test_a_stop_is_told_in_a_sentence_and_leaves_nothing_running(tmp_path: Path, moment: str, kept: str) -> None:
    project = make_project(tmp_path / "project", tmp_path / "prefect")
    project.change_params(lambda p: (p["federation"].update(rounds=8), p["training"].update(local_steps=20)))
    output = tmp_path / "output.txt"
    with output.open("w") as stream:
        demo = subprocess.Popen(
            ["zk0", "demo"],
            cwd=project.root,
            env=project.env,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A background job starts with SIGINT ignored, and so would this child of one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + 400
    while moment not in output.read_text():
        assert demo.poll() is None and time.monotonic() < deadline, output.read_text()[-2000:]
        time.sleep(0.05)

    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does

    assert demo.wait(120) == 130
    said = output.read_text()
    assert re.search(rf"\nstopped: {kept} is kept; `make demo` goes on\n$", said), said[-1000:]
    assert "Traceback" not in said and "Crash" not in said and "Warning" not in said
    assert running_in(project.root) == []
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Cancelled",)]
    context = json.loads((project.root / "context.json").read_text())
    assert context["technical_context"]["current_state"]["value"]["outcome"] == "Cancelled"
