"""Prefect's server and a worker on this machine: start, deploy, stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from zk0.errors import StageError
from zk0.services.process import RUN, Services, answers, own_environment

POOL = "zk0"
# Into the services' logs, that is; a flow run's own log is in the server's database.
_JSON_LOGS = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json"}
NAMES = ("worker", "server")  # the order in which they are stopped


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
    env = own_environment(PREFECT_API_URL=f"{url}/api", ZK0_HOME=str(root), **_JSON_LOGS)
    services = Services(root / RUN)
    try:
        server = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        services.launch("server", [sys.executable, "-m", "prefect", *server], env, root)
        services.await_ready("server", lambda: answers(f"{url}/api/health"), wait_s)
        _prefect(root, ["work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
        _prefect(root, ["deploy", "--all"], env)
        worker = ["worker", "start", "--pool", POOL, "--type", "process"]
        # Flow runs are its children; one of hours goes on without a worker.
        services.launch("worker", [sys.executable, "-m", "prefect", *worker], env, root, after=[port], outlived=True)
    except BaseException:  # Ctrl-C among them
        stop(root)
        raise
    return url


def stop(root: Path, wait_s: float = 20.0) -> list[str]:
    """Stop what :func:`start` started, worker first, with everything it started itself.

    Returns:
        Names of the services that were running.
    """
    return Services(root / RUN).stop(NAMES, wait_s)


def running(root: Path) -> dict[str, psutil.Process]:
    """Those of the two services that are alive, by name."""
    return {name: process for name, process in Services(root / RUN).running().items() if name in NAMES}


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
        raise StageError(
            f"`prefect {' '.join(words)}` failed: {done.stdout.strip()[-800:]} {done.stderr.strip()[-800:]}"
        )
