"""How far and how fast the joints of an SO-100 or SO-101 go: by the arm's build, not by anybody's recordings.

In LeRobot's order and units: degrees, and percent for the gripper.
"""

from __future__ import annotations

import numpy as np

# Of an SO-101, as its makers give it (TheRobotStudio/SO-ARM100, Simulation/SO101/so101_new_calib.xml, whose zeros are
# the middles of the ranges, as LeRobot's are). An SO-100 has the same joints.
JOINT_LOW = np.array([-110.0, -100.0, -96.8, -95.0, -157.2, 0.0])
JOINT_HIGH = np.array([110.0, 100.0, 96.8, 95.0, 157.2, 100.0])

# What an honest recording may hold besides: an eighth of a turn. LeRobot's zero is the middle of the range that a
# person swept while calibrating, and with three quarters of it swept it is off by 28 degrees; the zero of arms before
# June 2025 was set by eye; a horn put on one tooth off turns a joint by 14. A wrist roll, which is not swept, reads a
# whole turn. The gripper reads what LeRobot has ever let one read.
_SLACK = np.array([45.0, 45.0, 45.0, 45.0, 45.0, 10.0])
READ_LOW = JOINT_LOW - _SLACK
READ_HIGH = JOINT_HIGH + _SLACK

# An unloaded STS3215 turns 60 degrees in 0.222 s by its maker's data sheet, 45 turns a minute; measured were 46
# (TheRobotStudio/SO-ARM100, issue 134).
SERVO_SPEED_DEG_S = 270.0
# For how long an arm at full speed trails a leader that is faster: a guess, on the generous side.
_LAG_S = 0.1


def servo_turn(fps: int) -> float:
    """How many degrees a motor turns from one frame to the next."""
    return SERVO_SPEED_DEG_S / fps


def longest_change(fps: int) -> np.ndarray:
    """(6,) how far a target may sensibly be from the one before: what the motor turns in a frame."""
    return _arm_and_gripper(servo_turn(fps))


def longest_step(fps: int) -> np.ndarray:
    """(6,) how far a target may sensibly be from the position that it is given in: a frame's turn, and the lag's."""
    return _arm_and_gripper(servo_turn(fps) + SERVO_SPEED_DEG_S * _LAG_S)


def _arm_and_gripper(arm: float) -> np.ndarray:
    """A gripper's may be all of its range: it closes on things, and its target then says how firmly."""
    return np.array([*[arm] * (len(JOINT_LOW) - 1), JOINT_HIGH[-1] - JOINT_LOW[-1]])
