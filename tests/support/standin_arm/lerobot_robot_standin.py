"""A plugin of LeRobot, found as any is: its SO-100 and SO-101 followers without the serial port and the cameras.

Motors go where they are told at once, pictures are noise. Everything else is LeRobot's own, so that its commands do
here what they do with an arm. Each goal that reaches the motors is a line of the file STANDIN_GOALS: where they were,
and where they were sent.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots.so_follower import so_follower


class Motors:
    """A bus whose motors are numbers."""

    def __init__(self, port: str, motors: dict[str, Any], calibration: object) -> None:
        self.port, self.motors = port, motors
        self.is_connected, self.is_calibrated = False, True
        self.at = dict.fromkeys(motors, 10.0)

    def connect(self) -> None:
        self.is_connected = True

    def disconnect(self, disable_torque: bool) -> None:
        self.is_connected = False

    def torque_disabled(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def configure_motors(self) -> None: ...

    def write(self, name: str, motor: str, value: int) -> None: ...

    def sync_read(self, name: str, num_retry: int) -> dict[str, float]:
        assert name == "Present_Position"
        return dict(self.at)

    def sync_write(self, name: str, goals: dict[str, float]) -> None:
        assert name == "Goal_Position"
        with Path(os.environ["STANDIN_GOALS"]).open("a") as file:
            file.write(json.dumps({"at": self.at, "goal": goals}) + "\n")
        self.at = dict(goals)


class Camera:
    """Noise of the size that was asked for."""

    def __init__(self, config: Any) -> None:
        self.height, self.width, self.is_connected = config.height, config.width, False
        self._random = np.random.default_rng(1)

    def connect(self) -> None:
        self.is_connected = True

    def disconnect(self) -> None:
        self.is_connected = False

    def read_latest(self) -> np.ndarray:
        return self._random.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)


so_follower.FeetechMotorsBus = Motors
so_follower.make_cameras_from_configs = lambda configs: {name: Camera(config) for name, config in configs.items()}
