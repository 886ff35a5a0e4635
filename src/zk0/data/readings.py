"""How a motor's steps became the joint values of a recording, read off the values themselves.

The arm's motors count 4096 steps a turn. A recorder turns that whole number into degrees, or into a
share of the range that calibration found, so every value it wrote lies on a grid whose spacing
tells how that was done, to the seven digits of float32:

===========  ===============  ================================================================
convention   spacing          written by
===========  ===============  ================================================================
degrees      360 / 4095       LeRobot's ``MotorsBus._normalize``, ``MotorNormMode.DEGREES``:
                              from the middle of the range, which may lie between two steps
normalised   200 / range      the same with ``RANGE_M100_100``: from -100 at the range's lower
                              end; ``range`` is in steps, 4095 for a whole turn
so100-old    180 / 2048       LeRobot before June 2025 (``apply_calibration``): from a zero that
                              a person set by hand
===========  ===============  ================================================================

Actions come from a leader arm with a calibration of its own, or from a policy, so only states are
read. Values that no motor wrote (simulated, resampled, filtered) lie on none of these grids.

Normalised values are no angles without the range of motion that calibration found for each joint: it
is in the arm's calibration file, or shows in the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zk0.errors import DataError
from zk0.files import BadFileError, read_json
from zk0.params import Convention
from zk0.so100 import ARM_JOINTS

DEGREES_PER_STEP = 360 / 4095
_OLD_DEGREES_PER_STEP = 180 / 2048
# A calibrated range from an eighth of a turn, which no joint of the arm falls short of, to a whole one.
_RANGES = np.arange(512, 4096)
_TOLERANCE = 0.03  # of a spacing; float32 rounds to 0.001 of one
_SHARE = 0.98  # of the distinct values that must lie on a grid: a glitch on the bus is no other convention
_FEWEST = 12  # distinct values below which a joint tells nothing: 12 lie on some grid by chance once in 10^10
_MOST = 256  # distinct values that ranges are searched with
_ROUNDED = (0.05, 1 / 16)  # values that a program rounded lie on the grids of some ranges as well
_WITNESSES = 2  # joints that must agree

_SPACING: dict[Convention, str] = {
    "degrees": "of 360/4095 (degrees)",
    "normalised": "of 200 over a range (normalised)",
    "so100-old": "of 180/2048 (degrees of LeRobot before June 2025)",
}
MEASURED = "measured"
PLACE = "~/.cache/huggingface/lerobot/calibration/robots/ROBOT/ID.json"  # where LeRobot keeps the files
Calibration = str | Mapping[str, float]


@dataclass(frozen=True)
class Readings:
    """What a recording's states tell.

    Attributes:
        votes: Joint to the convention whose grid alone its values lie on. Joints that hardly moved,
            or lie on none or several, are left out.
        ranges: Joint to the steps of its calibrated range, where its values are normalised.
        still: Joints that moved too little to tell.
    """

    votes: Mapping[str, Convention]
    ranges: Mapping[str, int]
    still: tuple[str, ...]

    @property
    def convention(self) -> Convention | None:
        """What at least two joints agree on and none contradicts."""
        found = set(self.votes.values())
        return found.pop() if len(found) == 1 and len(self.votes) >= _WITNESSES else None

    def in_words(self) -> str:
        """One clause about what was seen."""
        if not self.votes:
            moved = len(ARM_JOINTS) - len(self.still)
            return (
                "the values of no joint lie on a grid that a motor's steps leave: simulated, or changed since"
                if moved >= _WITNESSES
                else f"only {moved} of {len(ARM_JOINTS)} joints moved enough to tell by their motors' steps"
            )
        parts = []
        for convention in dict.fromkeys(self.votes.values()):
            joints = [joint for joint, vote in self.votes.items() if vote == convention]
            parts.append(f"{', '.join(joints)} by steps {_SPACING[convention]}")
        return "the motors' steps show in the values: " + "; ".join(parts)


def read_steps(states: np.ndarray) -> Readings:
    """Look for the motors' steps in a recording's states.

    Args:
        states: (N, 6), joints in LeRobot's order.
    """
    votes: dict[str, Convention] = {}
    ranges: dict[str, int] = {}
    still = []
    for column, joint in enumerate(ARM_JOINTS):
        values = np.unique(np.asarray(states[:, column], dtype=np.float64))
        if len(values) < _FEWEST:
            still.append(joint)
            continue
        grids = _grids(values)
        if len(grids) == 1:
            ((vote, steps),) = grids.items()
            votes[joint] = vote
            if steps:
                ranges[joint] = steps
    return Readings(votes, ranges, tuple(still))


def _grids(values: np.ndarray) -> dict[Convention, int]:
    """The conventions whose grid the distinct values lie on; normalised ones with the range in steps."""
    found: dict[Convention, int] = {}
    if any(_share(values, spacing, 0.0) >= _SHARE for spacing in _ROUNDED):
        return found
    middles = (0.0, DEGREES_PER_STEP / 2)
    if max(_share(values, DEGREES_PER_STEP, middle) for middle in middles) >= _SHARE:
        found["degrees"] = 0
    if _share(values, _OLD_DEGREES_PER_STEP, 0.0) >= _SHARE:
        found["so100-old"] = 0
    # Degrees lie on the grid of a range of 2275 steps too, 200 degrees: the same numbers, whatever they are called.
    if not found and np.abs(values).max() <= 100.001 and (steps := _range_of(values)):
        found["normalised"] = steps
    return found


def _range_of(values: np.ndarray) -> int:
    """The range in steps on whose grid normalised values lie; 0 if there is none.

    Ranges that are multiples of the right one fit as well, smaller ones do not: the smallest is it.
    """
    some = values[np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int)]
    places = (some[:, None] + 100.0) * (_RANGES / 200.0)
    shares = (np.abs(places - np.rint(places)) <= _TOLERANCE).mean(axis=0)
    for steps in _RANGES[shares >= _SHARE].tolist():
        if _share(values, 200 / steps, -100.0) >= _SHARE:
            return int(steps)
    return 0


def _share(values: np.ndarray, spacing: float, origin: float) -> float:
    places = (values - origin) / spacing
    return float((np.abs(places - np.rint(places)) <= _TOLERANCE).mean())


def by_episode(states: np.ndarray, bounds: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, Convention]]:
    """Stretches of episodes that were each written by one convention: first and last episode, convention.

    Args:
        states: (N, 6).
        bounds: Episode to its first row and the row after its last.
    """
    stretches: list[tuple[int, int, Convention]] = []
    for episode, (start, stop) in sorted(bounds.items()):
        found = read_steps(states[start:stop]).convention
        if found is None:
            continue
        if stretches and stretches[-1][2] == found:
            stretches[-1] = (stretches[-1][0], episode, found)
        else:
            stretches.append((episode, episode, found))
    return stretches


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
    if isinstance(calibration, str):
        ranges, allowed = read_calibration(root / Path(calibration).expanduser()), DEGREES_PER_STEP / 2
    else:
        ranges, allowed = dict(calibration), 0.5  # a person rounds
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
