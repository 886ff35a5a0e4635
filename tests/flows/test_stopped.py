"""Ctrl-C in the demo: one sentence, a flow that is Cancelled, and nothing left running."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import termios
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from tests_support import Project, make_project

pytestmark = pytest.mark.services

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WIDTH = 80


def running_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(" ".join(process.cmdline()))
    return found


class Demo:
    """`zk0 demo` at a terminal of 80 columns, or into a pipe."""

    def __init__(self, project: Project, terminal: bool) -> None:
        self.log = project.root / ".run" / "demo.log"
        self._said: list[str] = []
        self._out, into = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(into, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        self._process = subprocess.Popen(
            ["zk0", "demo"],
            cwd=project.root,
            env={**project.env, "TERM": "xterm"},
            stdout=into,
            stderr=into,
            start_new_session=True,
            # A background job starts with SIGINT ignored, and so would this child of one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(into)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # a terminal that nobody writes to any more
            while part := os.read(self._out, 1 << 16):
                self._said.append(part.decode())

    @property
    def said(self) -> str:
        return CONTROL.sub("", "".join(self._said)).replace("\r", "\n")

    def until(self, moment: str) -> None:
        deadline = time.monotonic() + 400
        while not re.search(moment, self.said + (self.log.read_text() if self.log.exists() else "")):
            assert time.monotonic() < deadline and self._process.poll() is None, self.said[-2000:]
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C, as a terminal sends it; the exit status."""
        os.killpg(self._process.pid, signal.SIGINT)
        ended = self._process.wait(200)
        self._reader.join(60)
        return ended


@pytest.mark.parametrize(
    ("moment", "kept", "terminal"),
    [
        pytest.param("Starting temporary server", "what is complete", False, marks=pytest.mark.release),
        ("2 of 7: prepare data", "what is complete", False),
        ("round 3 of 8", "round [2-7]", True),
    ],
)
def test_a_stop_is_told_in_a_sentence_and_leaves_nothing_running(
    tmp_path: Path, moment: str, kept: str, terminal: bool
) -> None:
    project = make_project(tmp_path / "project", tmp_path / "prefect")
    project.change_params(lambda p: (p["federation"].update(rounds=8), p["training"].update(local_steps=20)))
    demo = Demo(project, terminal)
    demo.until(moment)

    assert demo.interrupt() == 130
    said = demo.said
    assert re.search(rf"\nstopped: {kept} is kept; `zk0 demo` goes on\n+$", said), said[-1000:]
    assert "Traceback" not in said and "Crash" not in said and "Warning" not in said
    assert running_in(project.root) == []
    with closing(sqlite3.connect(project.root / "prefect.db")) as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Cancelled",)]
    assert not (tmp_path / "prefect" / "prefect.db").exists()
    context = json.loads((project.root / "context.json").read_text())
    assert context["technical_context"]["current_state"]["value"]["outcome"] == "Cancelled"
    if terminal:
        assert max(map(len, said.splitlines())) <= WIDTH
        for shown in (
            r"validate +completed",
            r"rounds +\S* +2 of 8 +\d+:\d\d left",
            r"held-out loss \d",
            ".run/demo.log",
        ):
            assert re.search(shown, said), said[-3000:]


@pytest.mark.release
def test_where_nobody_reads_on_it_is_stopped_too(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", tmp_path / "prefect")

    done = project.run("bash", "-c", "zk0 demo | sed -u '/^1 of 7/q'")

    assert done.stdout.splitlines()[0] == "Prefect's log: .run/demo.log"
    assert "Traceback" not in done.stderr and running_in(project.root) == []
    with closing(sqlite3.connect(project.root / "prefect.db")) as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Cancelled",)]
