"""A plugin of LeRobot, found as any is: what stands below its OpenCV camera where there is no camera.

LeRobot's own camera runs: its thread, its checks of size and rate, its limit on a picture's age. Camera number n shows
the newest picture in the file n.npy of the folder STANDIN_FRAMES, (height, width, 3) uint8 in RGB, at the size that it
is set to.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np


class Capture:
    """As much of ``cv2.VideoCapture`` as LeRobot asks for."""

    def __init__(self, index: int, backend: int) -> None:
        self._frame = np.load(Path(os.environ["STANDIN_FRAMES"]) / f"{index}.npy", mmap_mode="r")
        height, width, _ = self._frame.shape
        self._set = {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: height, cv2.CAP_PROP_FPS: 30.0}
        self._open = True

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self._open

    def release(self) -> None:
        self._open = False

    def get(self, what: int) -> float:
        return float(self._set[what])

    def set(self, what: int, value: float) -> bool:
        self._set[what] = value
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        time.sleep(1 / self._set[cv2.CAP_PROP_FPS])
        size = (round(self._set[cv2.CAP_PROP_FRAME_WIDTH]), round(self._set[cv2.CAP_PROP_FRAME_HEIGHT]))
        return True, cv2.resize(np.array(self._frame)[:, :, ::-1], size, interpolation=cv2.INTER_AREA)


cv2.VideoCapture = Capture
