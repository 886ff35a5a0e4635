"""MLflow's pages of a project's own store, opened where the runs are."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from zk0.errors import StageError
from zk0.operations.start import MLFLOW_WITHOUT_JOBS, mlflow_command
from zk0.services.process import RUN, Services, answers, own_environment
from zk0.services.supervise import end
from zk0.tracking.store import experiment_id, opened
from zk0.tracking.view import runs_page

_LOG = RUN / "ui.log"
_WAIT_S = 180.0
_LOOK_S = 0.2
_GRACE_S = 10.0


@contextmanager
def mlflow_pages(root: Path, experiment: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes] | None]]:
    """Serve MLflow's pages within the block; where this project's own server is up, that one does.

    Args:
        root: Project folder; its store is made if there is none.
        experiment: Whose runs are wanted.
        port: The server's, on loopback.

    Returns:
        Address of the experiment's runs, and the server's process; None where it was running before.

    Raises:
        StageError: Another program has the port, or the server does not come up.
        TrackingError: The store cannot be opened.
    """
    root, server = root.resolve(), f"http://127.0.0.1:{port}"
    with opened(root, create=True) as client:
        page = runs_page(server, experiment_id(client, root, experiment))
    if answers(f"{server}/health"):
        if "mlflow" not in Services(root / RUN).running():
            raise StageError(f"port {port} is taken, by no server of this project; `zk0 ui --port {port + 1}`")
        yield page, None
        return
    log = root / _LOG
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as told:
        # Of a session of its own: Ctrl-C ends this process, and this process ends the server.
        process = subprocess.Popen(
            mlflow_command(root, port),
            cwd=root,
            env=own_environment(**MLFLOW_WITHOUT_JOBS),
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    try:
        _await(process, f"{server}/health")
        yield page, process
    finally:
        with suppress(psutil.NoSuchProcess):
            end([psutil.Process(process.pid)], psutil.Process.terminate, _GRACE_S)
        process.wait()


def _await(process: subprocess.Popen[bytes], health: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not answers(health):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StageError(f"MLflow's server did not come up; {_LOG} says why")
        time.sleep(_LOOK_S)
