"""What can be remarked about an episode, and what an owner does about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zk0.so100 import ARM_JOINTS, JOINTS

Kind = Literal[
    "length",
    "still",
    "idle",
    "jump",
    "ends",
    "late",
    "apart",
    "calibration",
    "dark",
    "blank",
    "frozen",
    "cut",
    "blurred",
    "moved camera",
    "doubled",
    "words",
]

PEERS = 5  # fewer episodes have no usual length, delay, distance or sharpness

# What to do about each kind.
ADVICE: Mapping[Kind, str] = {
    "length": "Watch it: an attempt that was broken off teaches to stop early. Leave it out, or cut it.",
    "still": "Leave it out: it teaches to do nothing.",
    "idle": "Cut the wait away, or start and stop nearer to the movement: a policy learns to wait as well.",
    "jump": "A reading or command was lost. Leave it out, and look at the motor's cable and the USB hub.",
    "ends": "The joint was driven against its end. Calibrate it over its whole way, or move the scene nearer.",
    "late": "Commands and positions are not of the same moment. Leave it out, and look at how it was recorded.",
    "apart": "The follower did not do what it was told: no torque, a stuck joint, or a leader calibrated otherwise.",
    "calibration": "Compare a known pose before and after. If calibration moved, train on one side of the move only.",
    "dark": "Leave it out: the policy would learn to act without seeing. Look at light and exposure.",
    "blank": "Leave it out: the camera gave no picture. Look at its cable and USB hub.",
    "frozen": "Leave it out: what is seen does not belong to what is done. Look at the camera's cable and USB hub.",
    "cut": "A picture of something else stands among the others. Look at it, and leave the episode out.",
    "blurred": "Look at it, focus or clean the lens, and leave it out if you cannot see what the arm does.",
    "moved camera": "Put the camera back, or record enough on both sides: a few centimetres cost successes.",
    "doubled": "Keep one of them. Held-out episodes that are trained on under another number prove nothing.",
    "words": "Say what is done, in one wording for one task and another for another: lerobot-edit-dataset changes it.",
}


@dataclass(frozen=True)
class Remark:
    """One thing that was noticed.

    Attributes:
        kind: Of what kind.
        episode: Where; None for the recording as a whole.
        text: What was seen, as a clause with its figures.
        grave: Whether training on it does harm unless somebody knows better.
    """

    kind: Kind
    episode: int | None
    text: str
    grave: bool = False


@dataclass(frozen=True)
class Numbers:
    """What an arm did, episode by episode.

    Attributes:
        fps: Frames a second.
        states: Episode to its (T, 6) joint positions in degrees, the gripper 0 to 100.
        actions: Episode to the commands, (T, 6) alike.
        sentences: Episode to its instruction.
        ends: (2, 6) the lowest and highest positions that a joint can read, where that is known.
    """

    fps: float
    states: Mapping[int, np.ndarray]
    actions: Mapping[int, np.ndarray]
    sentences: Mapping[int, str]
    ends: np.ndarray | None = None

    @property
    def arms(self) -> dict[int, np.ndarray]:
        """Episode to the positions of the joints without the gripper, (T, 5)."""
        return {episode: states[:, : len(ARM_JOINTS)] for episode, states in self.states.items()}


def amount(joint: int, value: float) -> str:
    """A joint's angle, or the gripper's opening, in words."""
    return f"{value:.1f} degrees" if JOINTS[joint] != "gripper" else f"{value:.1f} of 100"


def spread(values: np.ndarray) -> float:
    """Standard deviation of the bulk, by the median's absolute deviation: outliers do not widen it."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Beginning and end of the longest stretch of true values; (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    starts, stops = edges[::2], edges[1::2]
    if len(starts) == 0:
        return 0, 0
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])
