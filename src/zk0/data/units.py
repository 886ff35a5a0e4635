"""What joint values can be: how far and how fast an SO-100 or SO-101 goes, and in which units it says so.

The reach is by the arm's build, not by anybody's recordings; in LeRobot's order and units: degrees,
and percent for the gripper.

:mod:`zk0.data.conventions` settles how the states are written. Here is what no word in params can
make right: raw counts of the motors, radians, shares of one, an arm that never moved, and actions
in other units than the states that they lead to. What a healthy recording might show is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zk0.data.readings import read_steps
from zk0.errors import DataError
from zk0.so100 import ARM_JOINTS, JOINTS

_FARTHEST = 400.0  # degrees: a joint's whole turn, and what an old zero set by hand may add
_RADIANS_END = 3.3
_SHARE_END = 1.0001
_MOVED = 0.05  # of a unit: less than a motor's step in degrees, normalised or raw
_GRIPPER_STEP = 100 / 4096  # a gripper's values lie no closer, if a motor wrote them as 0 to 100
_GRIPPER_MOVED = 0.2
_LAG = 10  # frames that a state may come after its action
_ALIKE = 0.97  # correlation from which a joint's states and actions are one movement
_SCALES = (0.7, 1.43)  # of actions in states; a leader's range may differ from its follower's
_WITNESSES = 2

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


@dataclass(frozen=True)
class _Values:
    """States or actions, (N, 6), with the word for them."""

    what: str
    values: np.ndarray

    @property
    def arm(self) -> np.ndarray:
        return self.values[:, : len(ARM_JOINTS)]

    @property
    def reach(self) -> float:
        return float(np.abs(self.arm).max())

    @property
    def joint(self) -> str:
        return ARM_JOINTS[int(np.abs(self.arm).max(axis=0).argmax())]

    @property
    def moved(self) -> bool:
        return bool((np.ptp(self.arm, axis=0) > _MOVED).any())


def check_units(name: str, states: np.ndarray, actions: np.ndarray) -> None:
    """Refuse joint values of a recording that cannot be what any convention says.

    Args:
        name: The source's, in params.
        states: (N, 6) as recorded, finite.
        actions: (N, 6) as recorded, finite.

    Raises:
        DataError: Says which feature and joint, what was found and what to do.
    """
    kinds = (_Values("states", states), _Values("actions", actions))
    for kind in kinds:
        _check_counts(name, kind)
    for kind in kinds:
        if not kind.moved and len(states) > 1:
            raise DataError(
                f"'{name}': the arm's {kind.what} never change in {len(states)} frames, so there is nothing to learn; "
                "was the arm connected and its leader moved? Record again"
            )
    for kind in kinds:
        _check_small(name, kind)
        _check_gripper(name, kind)
    _check_alike(name, *kinds)


def _check_counts(name: str, kind: _Values) -> None:
    if kind.reach <= _FARTHEST:
        return
    whole = np.array_equal(kind.values, np.rint(kind.values))
    what = "raw counts of the motors" if whole and kind.arm.min() >= -4096 else "no angles of this arm"
    raise DataError(
        f"'{name}': {kind.what} reach {kind.reach:.0f} ({kind.joint}), and no joint of this arm turns that far: these "
        f"are {what}; degrees or normalised values (-100 to 100) were expected, whatever data.conventions says. Record "
        "with a calibrated arm, or convert the values by its calibration file into a new dataset"
    )


def _check_small(name: str, kind: _Values) -> None:
    if kind.reach > _RADIANS_END or read_steps(kind.values).convention is not None:
        return
    what = "shares from 0 to 1" if kind.reach <= _SHARE_END else "radians"
    raise DataError(
        f"'{name}': {kind.what} of the arm stay within {kind.reach:.2f} of zero ({kind.joint}), as {what} do; degrees "
        "or normalised values (-100 to 100) were expected, whatever data.conventions says. Convert them into a new "
        "dataset (radians times 57.29578), or record again"
    )


def _check_gripper(name: str, kind: _Values) -> None:
    values = np.unique(kind.values[:, -1].astype(np.float64))
    low, high = float(values[0]), float(values[-1])
    if high > _RADIANS_END or low < -_RADIANS_END or high - low < _GRIPPER_MOVED:
        return
    finer = float(np.median(np.diff(values))) < 0.75 * _GRIPPER_STEP
    switched = len(values) == 2 and (low, high) in {(0.0, 1.0), (-1.0, 1.0)}
    if finer or switched:
        raise DataError(
            f"'{name}': the gripper's {kind.what} run from {low:.2f} to {high:.2f}"
            f"{' in steps finer than its motor has' if finer else ''}; 0 (closed) to 100 (open) was expected, whatever "
            "data.conventions says. Multiply shares of 1 by 100 in a new dataset, or record again"
        )


def _check_alike(name: str, states: _Values, actions: _Values) -> None:
    found = [read_steps(kind.values).convention for kind in (states, actions)]
    if None not in found and found[0] != found[1]:
        raise DataError(
            f"'{name}': by the motors' steps in them its states are {found[0]} and its actions {found[1]}; both must "
            "be written alike: give leader and follower the same use_degrees and record again, or convert the actions"
        )
    scales = {
        joint: scale
        for column, joint in enumerate(ARM_JOINTS)
        if (scale := _scale(states.values[:, column], actions.values[:, column])) is not None
    }
    off = {joint: scale for joint, scale in scales.items() if not _SCALES[0] <= scale <= _SCALES[1]}
    if len(off) >= _WITNESSES:
        said = ", ".join(f"{joint} {scale:.2f}" for joint, scale in off.items())
        raise DataError(
            f"'{name}': actions and states of a joint follow each other in other units (a state's change in its "
            f"action's: {said}; about 1 was expected): both must be written alike; record again, or convert the actions"
        )
    gripper = len(JOINTS) - 1
    spans = [float(np.ptp(kind.values[:, gripper])) for kind in (states, actions)]
    scale = _scale(states.values[:, gripper], actions.values[:, gripper])
    if scale is not None and min(spans) > 0 and not 1 / 20 <= scale <= 20:
        raise DataError(
            f"'{name}': the gripper's states span {spans[0]:.2f} and its actions {spans[1]:.2f}, one movement in two "
            "units; 0 (closed) to 100 (open) was expected of both: convert one, or record again"
        )


def _scale(state: np.ndarray, action: np.ndarray) -> float | None:
    """How much an action changes where its state changes by one; None where they are not one movement."""
    if len(state) < 3 * _LAG or np.ptp(state) < _MOVED or np.ptp(action) < _MOVED / 100:
        return None
    best, scale = _ALIKE, None
    for lag in range(_LAG):
        later, earlier = state[lag:].astype(np.float64), action[: len(action) - lag].astype(np.float64)
        spread = float(later.std()), float(earlier.std())
        if not min(spread):
            continue
        alike = float(np.mean((later - later.mean()) * (earlier - earlier.mean()))) / (spread[0] * spread[1])
        if alike > best:
            best, scale = alike, spread[1] / spread[0]
    return scale


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
