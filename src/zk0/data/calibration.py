"""The range of motion that calibration found for each joint, without which normalised values are no angles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zk0.data.readings import DEGREES_PER_STEP
from zk0.errors import DataError
from zk0.files import BadFileError, read_json
from zk0.so100 import ARM_JOINTS

MEASURED = "measured"
PLACE = "~/.cache/huggingface/lerobot/calibration/robots/ROBOT/ID.json"  # where LeRobot keeps the files

Calibration = str | Mapping[str, float]


def described(calibration: Calibration) -> str:
    """Where the ranges come from, in words."""
    if calibration == MEASURED:
        return "ranges measured from the motors' steps in the values"
    return f"ranges from {calibration}" if isinstance(calibration, str) else "ranges from params"


def not_measured(measured: Mapping[str, int]) -> list[str]:
    """Joints whose range does not show in the values."""
    return [joint for joint in ARM_JOINTS if joint not in measured]


def ranges_of(name: str, calibration: Calibration, measured: Mapping[str, int], root: Path) -> dict[str, float]:
    """Joint to its calibrated range in degrees, negative where the recorder turned the direction round.

    Args:
        name: The source's, in params.
        calibration: Its entry in ``data.calibrations``: a file, ``measured``, or the ranges in degrees.
        measured: Joint to the steps of its range, as the values show it; what is given must agree.
        root: Folder that a relative file is looked for in.

    Raises:
        DataError: Ranges are missing, or are not those that the dataset was recorded with.
    """
    if calibration == MEASURED:
        if missing := not_measured(measured):
            raise DataError(
                f"data.calibrations {{{name}: {MEASURED}}}: the range of {', '.join(missing)} does not show in the "
                f"values, because it moved too little or was not read from a motor; give the arm's calibration file, "
                f"which LeRobot keeps as {PLACE}"
            )
        return {joint: measured[joint] * DEGREES_PER_STEP for joint in ARM_JOINTS}
    from_file = isinstance(calibration, str)
    ranges = read_calibration(root / Path(str(calibration)).expanduser()) if from_file else dict(calibration)  # type: ignore[arg-type]
    allowed = DEGREES_PER_STEP / 2 if from_file else 0.5  # a person rounds
    for joint, steps in measured.items():
        if abs(abs(ranges[joint]) - steps * DEGREES_PER_STEP) > allowed:
            raise DataError(
                f"data.calibrations '{name}' gives {joint} a range of {abs(ranges[joint]):.1f} degrees, but it was "
                f"recorded with {steps * DEGREES_PER_STEP:.1f} ({steps} steps of the motor): it is another arm's, or "
                f"of another day. Find the one that was in use, or say {{{name}: {MEASURED}}}"
            )
    return ranges


def read_calibration(path: Path) -> dict[str, float]:
    """Joint to its calibrated range in degrees, from a calibration file of LeRobot's.

    Raises:
        DataError: It is missing or holds something else; names the joint.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"the calibration file {path} does not exist; LeRobot keeps them as {PLACE}") from error
    except BadFileError as error:
        raise DataError(f"the calibration file {path} cannot be read: {error}") from error
    ranges = {}
    for joint in ARM_JOINTS:
        try:
            entry = content[joint]
            steps, inverted = int(entry["range_max"]) - int(entry["range_min"]), bool(entry.get("drive_mode"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path} is no calibration file of LeRobot's SO-100 or SO-101: it has no range_min and range_max for "
                f"{joint}"
            ) from error
        if not 0 < steps <= 4095:
            raise DataError(f"{path}: the range of {joint} is {steps} steps; 1 to 4095 were expected")
        ranges[joint] = steps * DEGREES_PER_STEP * (-1 if inverted else 1)
    return ranges
