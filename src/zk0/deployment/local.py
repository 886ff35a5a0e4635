"""Prefect's server and a worker on this machine: start, deploy, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from zk0.errors import StageError
from zk0.files import read_json, write_json

RUN = Path(".run")
_STATE = RUN / "services.json"
POOL = "zk0"


def start(root: Path, port: int = 4200, wait_s: float = 120.0) -> str:
    """Start server and worker, create the work pool, deploy the flows.

    Args:
        root: Project folder; the worker runs flows in it.
        port: The server's, on loopback.
        wait_s: How long to wait for the server to answer.

    Returns:
        The server's address.

    Raises:
        StageError: They are running already, or the server does not come up; says where the log is.
    """
    if alive := running(root):
        raise StageError(f"already running: {', '.join(sorted(alive))}; `zk0 down` stops them")
    url = f"http://127.0.0.1:{port}"
    # The present interpreter's folder first, so that flows and stages find `zk0` and `dvc`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    env = {**os.environ, "PATH": path, "PREFECT_API_URL": f"{url}/api", "ZK0_HOME": str(root)}
    server = _launch(root, "server", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], env)
    write_json(root / _STATE, {"url": url, "server": server})
    _await_health(root, f"{url}/api/health", server, wait_s)
    _prefect(root, ["work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
    _prefect(root, ["deploy", "--all"], env)
    worker = _launch(root, "worker", ["worker", "start", "--pool", POOL, "--type", "process"], env)
    write_json(root / _STATE, {"url": url, "server": server, "worker": worker})
    return url


def stop(root: Path, wait_s: float = 20.0) -> list[str]:
    """Stop what :func:`start` started, worker first, with everything it started itself.

    Returns:
        Names of the services that were running.
    """
    stopped = []
    for name in ("worker", "server"):
        process = running(root).get(name)
        if process is None:
            continue
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=wait_s)
        for survivor in left:
            survivor.kill()
        stopped.append(name)
    (root / _STATE).unlink(missing_ok=True)
    return stopped


def running(root: Path) -> dict[str, psutil.Process]:
    """The services that are alive, by name. A process id that was given to another is not ours."""
    if not (root / _STATE).exists():
        return {}
    found = {}
    state = read_json(root / _STATE)
    for name in ("server", "worker"):
        if name in state:
            try:
                process = psutil.Process(state[name]["pid"])
                if abs(process.create_time() - state[name]["started"]) < 1.0:
                    found[name] = process
            except psutil.NoSuchProcess:
                continue
    return found


def _launch(root: Path, name: str, words: list[str], env: dict[str, str]) -> dict[str, float]:
    """Start a Prefect command in the background, its output in .run/NAME.log."""
    (root / RUN).mkdir(exist_ok=True)
    with (root / RUN / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=root,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}


def _await_health(root: Path, url: str, server: dict[str, float], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(int(server["pid"])):
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    stop(root)
    raise StageError(f"Prefect's server did not come up; its log is {root / RUN / 'server.log'}")


def _prefect(root: Path, words: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        stop(root)
        raise StageError(
            f"`prefect {' '.join(words)}` failed: {done.stdout.strip()[-800:]} {done.stderr.strip()[-800:]}"
        )
