"""A task's token reaches its process, and stands in no command line."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec

from zk0.network.superexec import DiscreetExecutor
from zk0.services.process import own_environment

TOKEN = "5e" * 32


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_a_task_gets_its_token_and_ps_does_not(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Flower's own `flwr-clientapp`, which asks the Runtime API for its work with the token in a header."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("PATH", own_environment()["PATH"])
    asked, came = list[str | None](), threading.Event()

    class Runtime(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["flwr-task-token"])
            came.set()
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    before = {process.pid for process in psutil.Process().children()}
    with HTTPServer(("127.0.0.1", 0), Runtime) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        DiscreetExecutor().launch(ExecutionSpec(TaskType.CLIENT_APP, address, TOKEN, True, None, False, None, True, 1))
        (task,) = [process for process in psutil.Process().children() if process.pid not in before]
        try:
            words = task.cmdline()
            assert came.wait(120)
            assert TOKEN not in " ".join([*words, *task.cmdline()]) and TOKEN not in task.environ().values()
        finally:
            task.kill()
            task.wait()
            server.shutdown()
    assert asked[0] == TOKEN


def test_flowers_superexec_takes_this_executor(tmp_path: Path) -> None:
    """In the version that is installed."""
    code = (
        "import importlib, sys, flwr.supercore.cli as cli, zk0.network.superexec as own\n"
        "cli.flower_superexec = lambda: None\n"
        "own.main()\n"
        "made = importlib.import_module('flwr.supercore.superexec.run_superexec').get_executor('subprocess')\n"
        "sys.exit(0 if isinstance(made, own.DiscreetExecutor) else 1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
