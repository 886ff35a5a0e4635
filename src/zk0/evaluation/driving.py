"""A target as an arm takes it: cut by the very function that LeRobot's followers call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from lerobot.robots import utils as lerobot_robots

from zk0.so100 import JOINTS

_SAME = 1e-4  # degrees below which LeRobot does not speak of a cut


def cut(target: np.ndarray, position: np.ndarray, longest: Mapping[str, float]) -> np.ndarray:
    """The target that is sent to the motors.

    Args:
        target: (6,) joint targets that the policy asks for, in LeRobot's units.
        position: (6,) where the arm is.
        longest: Joint to the longest step, a follower's ``max_relative_target``.

    Returns:
        (6,) targets, each as it was asked for where it is near enough.
    """
    asked = {name: (float(t), float(p)) for name, t, p in zip(JOINTS, target, position, strict=True)}
    safe = lerobot_robots.ensure_safe_goal_position(asked, dict(longest))
    sent = np.array([safe[name] for name in JOINTS], dtype=target.dtype)
    return np.where(np.abs(sent - target) > _SAME, sent, target)


@contextmanager
def quietly() -> Iterator[None]:
    """LeRobot warns of every cut, several lines each; who rolls out thousands of steps counts them instead."""

    def other(record: logging.LogRecord) -> bool:
        return Path(record.pathname) != Path(lerobot_robots.__file__)

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)
