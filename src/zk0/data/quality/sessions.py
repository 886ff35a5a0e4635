"""What moved between two sessions of one recording and stayed there: a joint's calibration, a camera."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark
from zk0.so100 import ARM_JOINTS
from zk0.suggestions import stretches

RUN = 3  # episodes on each side: fewer are two that began elsewhere
MOVED_DEG = 8.0  # half of the 17 degrees that a public report tells of; by hand nobody rests an arm as unlike
CLEAR = 4.0  # times the spread of either side
LEAST_DEG = 0.5  # spread below which none is believed: six steps of the motor
ALONG = 0.5  # rest, end and average pose must move by at least this share of each other
CAMERA_LEVELS = 6.0  # of 255, over the whole picture: what a moved tripod or the lamp at night changes
CAMERA_CLEAR = 3.0  # times what two halves of one side differ by


def calibration(numbers: Numbers) -> list[Remark]:
    """Joints whose rest, end and average poses all move by about the same angle, and stay there.

    A calibration that moved shifts every reading of a joint. Another task or another start shifts some poses only.
    """
    episodes = sorted(numbers.states)
    arms = numbers.arms
    whole = {
        "start": np.array([np.median(arms[e][:3], axis=0) for e in episodes]),
        "end": np.array([np.median(arms[e][-3:], axis=0) for e in episodes]),
        "average": np.array([arms[e].mean(axis=0) for e in episodes]),
    }
    found = []
    for joint, name in enumerate(ARM_JOINTS):
        runs = _runs(whole["start"][:, joint], lambda left, right: _moved(left, right))
        if len(runs) < 2:
            continue
        home = max(runs, key=len)
        for run in runs:
            shifts = [float(np.median(v[run, joint]) - np.median(v[home, joint])) for v in whole.values()]
            if run is home or min(np.sign(shifts[0]) * np.array(shifts)) < max(MOVED_DEG / 2, ALONG * abs(shifts[0])):
                continue
            text = (
                f"{name} starts, ends and moves {shifts[0]:+.1f} degrees from the other episodes, all through "
                f"{stretches(episodes[i] for i in run)}"
            )
            found += [Remark("calibration", episodes[i], text, grave=True) for i in run]
    return found


def cameras(first: dict[str, dict[int, np.ndarray]]) -> list[Remark]:
    """Cameras whose view at the beginning of an episode is another from some episode on.

    Args:
        first: Camera to episode to its first picture, (H, W) grey and small.
    """
    found = []
    for camera, pictures in first.items():
        episodes = sorted(pictures)
        views = np.array([pictures[e] for e in episodes], dtype=np.float32)
        runs = _runs(views, _other_view)
        home = max(runs, key=len)
        for run in runs:
            if run is not home:
                text = f"{camera} sees another scene than in most episodes: moved, or in other light, all through "
                text += stretches(episodes[i] for i in run)
                found += [Remark("moved camera", episodes[i], text) for i in run]
    return found


def _moved(left: np.ndarray, right: np.ndarray) -> float:
    """Degrees between the sides, 0 if that is not beyond doubt."""
    shift = abs(float(np.median(left) - np.median(right)))
    widest = max(LEAST_DEG, *(float(np.percentile(np.abs(side - np.median(side)), 80)) for side in (left, right)))
    return shift if shift >= max(MOVED_DEG, CLEAR * widest) else 0.0


def _other_view(left: np.ndarray, right: np.ndarray) -> float:
    """Grey levels between the sides' usual views, 0 if that is not beyond doubt."""
    apart = _apart(left, right)
    within = max(_apart(side[::2], side[1::2]) for side in (left, right))
    return apart if apart >= max(CAMERA_LEVELS, CAMERA_CLEAR * within) else 0.0


def _apart(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(np.median(left, axis=0) - np.median(right, axis=0)).mean())


def _runs(values: np.ndarray, apart: Callable[[np.ndarray, np.ndarray], float]) -> list[range]:
    """Stretches of episodes between which something moved.

    A move is looked for among the few episodes on either side, so that one that is taken back is seen as well; then
    each must hold between the whole stretches that it divides.
    """
    places = range(RUN, len(values) - RUN + 1)
    scores = {p: apart(values[p - RUN : p], values[p : p + RUN]) for p in places}
    cuts: list[int] = []
    for place in sorted((p for p in places if scores[p] > 0), key=lambda p: _looseness(values, p)):
        if all(abs(place - cut) >= RUN for cut in cuts):
            cuts.append(place)
    while True:
        edges = [0, *sorted(cuts), len(values)]
        runs = [range(start, stop) for start, stop in pairwise(edges)]
        between = [
            apart(values[left.start : left.stop], values[right.start : right.stop]) for left, right in pairwise(runs)
        ]
        if not between or min(between) > 0:
            return runs
        cuts.remove(runs[int(np.argmin(between))].stop)


def _looseness(values: np.ndarray, place: int) -> float:
    """How unlike each other the episodes on each side of a place are."""
    sides = values[place - RUN : place], values[place : place + RUN]
    return sum(float(np.abs(side - np.median(side, axis=0)).sum()) for side in sides)
