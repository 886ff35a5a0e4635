"""The pipeline's stages, as commands and the flow `federate` run them, and what each leaves.

DVC removes a stage's outputs before it runs the stage, and fails where one is missing afterwards. A stage that has
nothing for a folder, such as recordings where no source is simulated, leaves it empty.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zk0.errors import StageError
from zk0.files import parse_json
from zk0.steps import Asks, Step

if TYPE_CHECKING:
    from zk0.params import Params

STAGE_LOCK = Path(".run/stage.lock")

# Stage to those of its outputs that are folders; files are written whatever there is to say.
FOLDERS = {
    "prepare": ("data/recordings", "data/manifests"),
    "federate": ("results/federation", "checkpoints"),
    "evaluate": ("results/rollouts",),
}


def run_stage(name: str, root: Path, params: Params) -> None:
    """Run a stage by its name, as every orchestrator does.

    Args:
        name: Of dvc.yaml and of the module beside this one.
        root: Project folder.
        params: The run's.
    """
    importlib.import_module(f"zk0.pipeline.{name}").run(root, params)
    for folder in FOLDERS.get(name, ()):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _stage(name: str, stage: str, about: str, asks: Asks | None = None) -> Step[[Path, Params], None]:
    return Step(name, lambda root, params: run_stage(stage, root, params), about, stage, asks)


# By their names in the flow and in dvc.yaml.
VALIDATE = _stage("validate environment", "validate", "Check this machine, and resolve every source to a digest.")
PREPARE = _stage(
    "prepare data",
    "prepare",
    "Record or find the data, check it, split it into sites and held-out episodes.",
    asks="sources",
)
FEDERATE = _stage("run federation", "federate", "Run the federation, or go on where a stopped one ended.")
EVALUATE = _stage("evaluate", "evaluate", "Compare base and global model on held-out data and in closed loop.")
BENCHMARK = _stage("benchmark", "benchmark", "Measure step time, latency, bytes and memory on this machine.")
REPORT = _stage("report", "report", "Write the HTML report.")
# The tracking database may be busy or, when it is a server, away.
TRACK = _stage("track", "track", "Put the run into MLflow; a second time changes nothing.", asks="service")

STAGES = (VALIDATE, PREPARE, FEDERATE, EVALUATE, BENCHMARK, REPORT, TRACK)


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock within the block. The kernel gives it back when the process ends, however it ends.

    Args:
        lock: A file that only this is for; it says who holds the lock, and stays.
        what: The command that wants it, for whoever comes second.

    Raises:
        StageError: Another process holds it; names the process, what it does and since when.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StageError(
                f"`{what}` is refused: {_holder(file.read())} is at work in this folder; wait for it, or stop it first"
            ) from error
        file.truncate()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "what": what, "started": started}) + "\n")
        file.flush()
        yield


def _holder(text: str) -> str:
    """Whoever holds a lock, by what it wrote; it may not have written yet."""
    try:
        told = parse_json(text, "the lock")
        return f"`{told['what']}` (process {told['pid']}, since {told['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
