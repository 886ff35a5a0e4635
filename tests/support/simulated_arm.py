"""The embedded arm behind a serial line and two cameras, in real time: `python simulated_arm.py FOLDER TASK SEED`.

The first line that it prints names the port. In FOLDER it keeps calibration.json as LeRobot reads it, frames/0.npy and
1.npy, the pictures of top and wrist camera, bus.jsonl, what servo_bus prints, and, once it is ended by SIGTERM,
ended.json.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from zk0.data.sim.simulation import CAMERAS, Simulation, mujoco  # imported there after its GL is chosen
from zk0.data.sim.tasks import find_task
from zk0.so100 import JOINTS

PICTURE_S = 1 / 15
LATE_S = 0.1  # behind the clock by more than this, the arm has stood still meanwhile


def calibration() -> dict[str, dict[str, int]]:
    """As LeRobot keeps it, in ticks; ranges whose middles are the simulated joints' zeros, no two alike."""
    motors = {joint: (100 * n - 250, 2048 - 1500 + n, 2047 + 1500 - n) for n, joint in enumerate(JOINTS[:5])}
    motors["gripper"] = (-120, 1900, 3400)
    return {
        joint: {"id": n, "drive_mode": 0, "homing_offset": offset, "range_min": low, "range_max": high}
        for n, (joint, (offset, low, high)) in enumerate(motors.items(), 1)
    }


def shared(file: Path, content: np.ndarray) -> np.ndarray:
    """An array that other processes see change."""
    np.save(file, content)
    return np.load(file, mmap_mode="r+")


def run(folder: Path, task: str, seed: int) -> None:
    """Until SIGTERM."""
    (folder / "calibration.json").write_text(json.dumps(calibration()))
    sim = Simulation(find_task(task))
    sim.reset(seed)
    (folder / "frames").mkdir()
    joints = shared(folder / "joints.npy", np.stack([sim.state(), sim.state(), np.zeros(6)]))
    frames = {
        name: shared(folder / "frames" / f"{number}.npy", picture)
        for number, (name, picture) in enumerate(sim.images().items())
    }
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with (folder / "bus.jsonl").open("w") as log:
        bus = subprocess.Popen([sys.executable, str(Path(__file__).with_name("servo_bus.py")), folder], stdout=log)
    while not (port := (folder / "bus.jsonl").read_text()).endswith("\n"):
        time.sleep(0.05)
    print(port, end="", flush=True)
    _drive(sim, joints, frames, ended)
    bus.kill()
    bus.wait()
    moved = float(np.linalg.norm(sim.object_position[:2] - [sim.scene.x, sim.scene.y]))
    (folder / "ended.json").write_text(json.dumps({"object_moved_m": moved, "limp": not joints[2].any()}))
    sim.close()


def _drive(sim: Simulation, joints: np.ndarray, frames: dict[str, np.ndarray], ended: threading.Event) -> None:
    began, shown = time.monotonic() - float(sim.data.time), 0.0
    while not ended.is_set():
        if joints[2].all():
            sim.data.ctrl[:6] = sim.units.to_mujoco(joints[1])
        began = max(began, time.monotonic() - float(sim.data.time) - LATE_S)
        while sim.data.time < time.monotonic() - began:
            mujoco.mj_step(sim.model, sim.data)
        joints[0] = sim.state()
        if time.monotonic() - shown >= PICTURE_S:
            shown = time.monotonic()
            for name, frame in frames.items():
                frame[:] = sim.render(CAMERAS[name])
        time.sleep(0.002)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
