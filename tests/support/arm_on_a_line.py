"""LeRobot's command line, typed with the simulated arm on the other end of its serial line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests_support import REPO

SUPPORT = REPO / "tests/support"


@dataclass(frozen=True)
class Driven:
    """What came of a command.

    Attributes:
        code: It ended with.
        said: By it.
        goals: Each command to the motors; see :mod:`servo_bus`.
        object_moved_m: How far the object on the table.
        limp: Whether the motors are switched off.
    """

    code: int
    said: str
    goals: list[dict[str, Any]]
    object_moved_m: float
    limp: bool


# What LeRobot says when it was not given the processor in time to see that a motor had answered within 50 ms.
_TOO_BUSY = ("There is no status packet!", "Missing motor IDs")


def type_line(
    python: Path, line: str, checkpoint: Path, folder: Path, *, calibrated: bool = True, seed: int = 100_003
) -> Driven:
    """Run a line in a checkpoint's folder, as a person does who has set the port; nothing can be downloaded.

    Where the machine is too busy for LeRobot to keep in touch with the motors, it is tried again, twice.

    Args:
        python: Of the environment with LeRobot.
        line: ``lerobot-rollout ...`` with continuations, or one of its other commands.
        checkpoint: Where it is typed.
        folder: For all that is written; made.
        calibrated: Whether LeRobot knows the arm's calibration.
        seed: Of the scene: the task is push-red-cube-left.
    """
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        driven = _typed(python, line, checkpoint, folder, calibrated, seed)
        if driven.code == 0 or not any(words in driven.said for words in _TOO_BUSY):
            break
    return driven


def _typed(python: Path, line: str, checkpoint: Path, folder: Path, calibrated: bool, seed: int) -> Driven:
    folder.mkdir()
    arm = subprocess.Popen(
        [sys.executable, str(SUPPORT / "simulated_arm.py"), str(folder), "push-red-cube-left", str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert arm.stdout
        port = arm.stdout.readline().strip()
        known = folder / "home/calibration/robots/so_follower"
        known.mkdir(parents=True)
        if calibrated:
            shutil.copy(folder / "calibration.json", known / "mine.json")
        program, *words = shlex.split(line.replace("/dev/ttyACM0", port).replace("\\\n", " "))
        done = subprocess.run(
            [str(python), str(Path(sys.executable).with_name(program)), *words],
            cwd=checkpoint,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        arm.send_signal(signal.SIGTERM)
        arm.wait(60)
    goals = [json.loads(text) for text in (folder / "bus.jsonl").read_text().splitlines()[1:]]
    return Driven(done.returncode, done.stdout, goals, **json.loads((folder / "ended.json").read_text()))


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(SUPPORT / "standin_camera"),
        "STANDIN_FRAMES": str(folder / "frames"),
        "HF_LEROBOT_HOME": str(folder / "home"),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
