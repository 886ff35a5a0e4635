"""How joint values are written, and how they become what the federation trains on: degrees.

Three conventions are found in recordings of an SO-100 or SO-101. The gripper is 0 (closed) to 100
(open) in all of them.

- ``degrees``: from the middle of each joint's range; LeRobot's default since its version 0.5.
- ``normalised``: -100 to 100 over the range that calibration found, LeRobot's default from June 2025
  until then (``use_degrees=False``). The same number is another angle on another arm, so arms can
  only share a policy in degrees. The range is in the arm's calibration file, and shows in the values.
- ``so100-old``: degrees from an arm stretched out horizontally, joints named ``main_*``, before
  June 2025. By LeRobot's own account shoulder_lift turned the other way, and it and elbow_flex had
  their zero 90 degrees off: https://huggingface.co/docs/lerobot/backwardcomp

Nothing is converted unless params say which convention a dataset has, and what params say must not
contradict what the values show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from zk0.data.readings import MEASURED, PLACE, Calibration, by_episode, described, not_measured, ranges_of, read_steps
from zk0.errors import DataError
from zk0.params import Convention
from zk0.so100 import ACTION, ARM_JOINTS, JOINTS, STATE

if TYPE_CHECKING:  # a manifest that comes over the network needs no tables
    from zk0.data.info import Feature

CONVENTION_KEY = "joint_convention"  # in a feature's info, where a recorder says it outright
_CONVENTIONS: tuple[Convention, ...] = ("degrees", "normalised", "so100-old")
_OLD_ROBOTS = ("so100", "so101")
_GRIPPER = (-10.0, 110.0)  # what LeRobot has ever let a gripper read
_NORMALISED_END = 100.001
_RADIANS_END = 3.3


class JointMap(BaseModel):
    """From a recording's joint values to degrees: ``scale * value + offset``, joint by joint.

    Example:
        >>> JointMap(scale=(1, -1, 1, 1, 1, 1), offset=(0, 90, -90, 0, 0, 0)).apply(np.zeros((1, 6)))
        array([[  0.,  90., -90.,   0.,   0.,   0.]], dtype=float32)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: tuple[float, ...] = Field(max_length=64)
    offset: tuple[float, ...] = Field(max_length=64)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(N, 6) values as (N, 6) float32 degrees, the gripper as it was."""
        return np.asarray(values * np.array(self.scale) + np.array(self.offset), dtype=np.float32)


OLD_TO_DEGREES = JointMap(scale=(1, -1, 1, 1, 1, 1), offset=(0, 90, -90, 0, 0, 0))


@dataclass(frozen=True)
class Recording:
    """What of a dataset tells how its joint values are written.

    Attributes:
        features: Of its info.
        names: The joints as its recorder named them.
        robot_type: Of its info.
        states: (N, 6) as recorded.
        bounds: Episode to its first row and the row after its last.
    """

    features: Mapping[str, Feature]
    names: tuple[str, ...]
    robot_type: str
    states: np.ndarray
    bounds: Mapping[int, tuple[int, int]]

    @property
    def reach(self) -> tuple[str, float]:
        """The joint of the arm with the largest value, and that value's size."""
        largest = np.abs(self.states[:, : len(ARM_JOINTS)]).max(axis=0)
        return ARM_JOINTS[int(largest.argmax())], float(largest.max())

    @property
    def gripper(self) -> tuple[float, float]:
        """The gripper's smallest and largest value."""
        return float(self.states[:, -1].min()), float(self.states[:, -1].max())

    @property
    def odd_gripper(self) -> bool:
        """Whether the gripper goes where LeRobot lets none go."""
        return self.gripper[0] < _GRIPPER[0] or self.gripper[1] > _GRIPPER[1]

    @property
    def noted(self) -> Convention | None:
        """What the recorder noted, if it did for state and action alike."""
        found = [self.features.get(name) for name in (STATE, ACTION)]
        noted = {feature.info.get(CONVENTION_KEY) if feature and feature.info else None for feature in found}
        only = noted.pop() if len(noted) == 1 else None
        return only if only in _CONVENTIONS else None

    @property
    def old_names(self) -> bool:
        """Whether the joints are named as LeRobot did before June 2025."""
        return all(name.startswith("main_") for name in self.names)


@dataclass(frozen=True)
class Finding:
    """How a dataset's joint values are most probably written.

    Attributes:
        convention: What it comes to; None where nothing tells.
        certain: The recorder said so, or the motors' steps show it.
        reasons: What was seen, one clause each.
        ranges: Joint to the steps of its calibrated range, where its values are normalised.
    """

    convention: Convention | None
    certain: bool
    reasons: tuple[str, ...]
    ranges: Mapping[str, int]


@dataclass(frozen=True)
class Joints:
    """What a dataset's joint values are taken for.

    Attributes:
        convention: How they are written.
        by: Who said so: ``params``, or ``the data``.
        map: How they become degrees; None where they are.
        reasons: What was found.
    """

    convention: Convention
    by: str
    map: JointMap | None
    reasons: tuple[str, ...]


def find_convention(recording: Recording) -> Finding:
    """How a dataset's joint values are most probably written, and what speaks for it."""
    readings = read_steps(recording.states)
    noted, shown = recording.noted, readings.convention
    reasons = [f"its recorder noted {noted} in meta/info.json"] if noted else []
    reasons += [*_names_in_words(recording), readings.in_words(), *_values_in_words(recording)]
    if shown is None:
        reasons += _episodes_in_words(recording)
    old = recording.old_names and recording.robot_type in _OLD_ROBOTS
    convention: Convention | None = shown or noted or ("so100-old" if old else None)
    certain = (shown is not None or noted is not None) and noted in (None, convention)
    return Finding(convention, certain, tuple(reasons), readings.ranges)


def _names_in_words(recording: Recording) -> list[str]:
    robot = f"on a robot of type {recording.robot_type}"
    if recording.old_names:
        return [f"joints are named main_* {robot}, as by LeRobot before June 2025"]
    if all(name.endswith(".pos") for name in recording.names):
        return [f"joints are named *.pos {robot}, as by LeRobot since June 2025, in degrees or normalised"]
    return [f"joints are named without LeRobot's prefix or suffix {robot}"]


def _values_in_words(recording: Recording) -> list[str]:
    joint, largest = recording.reach
    said = f"values reach {largest:.1f} ({joint})"
    if largest > _NORMALISED_END:
        said += ", where normalised ones end at 100"
    elif largest <= _RADIANS_END:
        said += ", as in radians, which zk0 does not convert"
    if not recording.odd_gripper:
        return [said]
    low, high = recording.gripper
    return [said, f"the gripper goes from {low:.1f} to {high:.1f}, and LeRobot writes 0 (closed) to 100 (open)"]


def _episodes_in_words(recording: Recording) -> list[str]:
    """Why no one convention shows in a dataset of several episodes, if that is because they differ."""
    if len(recording.bounds) < 2:
        return []
    stretches = by_episode(recording.states, recording.bounds)
    if len({convention for _, _, convention in stretches}) > 1:
        parts = ", ".join(f"{first} to {last} {convention}" for first, last, convention in stretches)
        return [
            f"its episodes are not written alike ({parts}): split them with `lerobot-edit-dataset --operation.type "
            "split`, a source for each"
        ]
    if stretches and stretches[0][2] == "normalised":
        return ["each episode by itself looks normalised: the arm was calibrated anew in between"]
    return []


def settle(
    name: str, said: Convention | None, calibration: Calibration | None, recording: Recording, root: Path
) -> Joints:
    """What a dataset's joint values are to be taken for.

    Args:
        name: The source's, in params.
        said: Its entry in ``data.conventions``.
        calibration: Its entry in ``data.calibrations``.
        recording: What the dataset shows of itself.
        root: Project folder, in which a calibration file is looked for.

    Raises:
        DataError: Params do not say it and it is not certainly degrees; or they say what cannot be, or not enough
            to convert it. The message has what was found and what to put into params.
    """
    finding = find_convention(recording)
    if said is None:
        if finding.convention == "degrees" and finding.certain and not recording.odd_gripper:
            return Joints("degrees", "the data", None, finding.reasons)
        raise DataError(_what_to_say(name, finding.convention, finding))
    _check_said(name, said, finding, recording)
    if said != "normalised":
        return Joints(said, "params", OLD_TO_DEGREES if said == "so100-old" else None, finding.reasons)
    if calibration is None:
        raise DataError(_what_to_say(name, "normalised", finding))
    ranges = ranges_of(name, calibration, finding.ranges, root)
    scale = tuple(ranges[joint] / 200 if joint in ranges else 1.0 for joint in JOINTS)
    joint_map = JointMap(scale=scale, offset=(0.0,) * len(JOINTS))
    return Joints(said, "params", joint_map, (*finding.reasons, described(calibration)))


def _check_said(name: str, said: Convention, finding: Finding, recording: Recording) -> None:
    """What params say may add to what the data shows, but not contradict it."""
    joint, largest = recording.reach
    if said == "normalised" and largest > _NORMALISED_END:
        raise DataError(
            f"data.conventions says that '{name}' is normalised, but {joint} reaches {largest:.1f} and normalised "
            "values end at 100"
        )
    if finding.certain and finding.convention != said:
        raise DataError(
            f"data.conventions says that '{name}' is {said}, but it is {finding.convention}: "
            f"{'; '.join(finding.reasons)}"
        )


def _what_to_say(name: str, convention: Convention | None, finding: Finding) -> str:
    """The refusal of a dataset about which params must say more."""
    seen, surely = "; ".join(finding.reasons), "certainly" if finding.certain else "probably"
    if convention == "so100-old":
        return (
            f"'{name}' is {surely} in the degrees of LeRobot before June 2025 ({seen}). To have it converted, say so "
            f"in params: data.conventions: {{{name}: so100-old}}"
        )
    if convention == "normalised":
        return (
            f"'{name}' is {surely} normalised, and another arm's numbers mean other angles ({seen}). To have it "
            f"converted to degrees, say in params data.conventions: {{{name}: normalised}} and data.calibrations: "
            f"{{{name}: FILE}}, the arm's calibration file, which LeRobot keeps as {PLACE}"
            + (
                f"; or {{{name}: {MEASURED}}}, as its values show the ranges"
                if not not_measured(finding.ranges)
                else ""
            )
        )
    return (
        f"'{name}': it is not certain how its joint values are written ({seen}). Say so in params: data.conventions: "
        f"{{{name}: degrees}}, or normalised, or so100-old; see docs/data.md"
    )
