"""Episodes that are there twice: by their numbers, or by their pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zk0.data.quality.remarks import Numbers, Remark
from zk0.data.quality.sketch import Sketch

SAME_DEG = 0.1  # a step of the motor; nobody moves an arm twice the same way
SAME_LEVELS = 1.5  # encoding a picture again changes the mean of a block by less
LOOKS = 8  # pictures of an episode that are compared


def doubles(numbers: Numbers, sketches: Mapping[str, Sketch]) -> list[Remark]:
    """Episodes with the movement, or with the pictures, of an earlier one."""
    moves = {e: s for e, s in numbers.states.items() if len(s) > 1 and np.ptp(s, axis=0).max() > 1.0}
    twice = _twins(moves, SAME_DEG)
    found = [
        Remark("doubled", episode, f"moves exactly as episode {first}", grave=True) for episode, first in twice.items()
    ]
    for camera, sketch in sketches.items():
        views = {e: _some(grey) for e, grey in sketch.grey.items() if len(grey) >= LOOKS}
        # Pictures that do not change, or show nothing, are another fault.
        told = {e: view for e, view in views.items() if np.ptp(view, axis=0).max() > 2 * SAME_LEVELS}
        for episode, first in _twins(told, SAME_LEVELS).items():
            if episode not in twice:
                text = f"{camera} shows the pictures of episode {first}, and the arm moves otherwise"
                found.append(Remark("doubled", episode, text, grave=True))
    return found


def _some(grey: np.ndarray) -> np.ndarray:
    """(8, H * W) some of an episode's pictures, evenly spread."""
    chosen = np.linspace(0, len(grey) - 1, LOOKS).round().astype(int)
    return grey[chosen].reshape(LOOKS, -1).astype(np.float32)


def _twins(content: Mapping[int, np.ndarray], tolerance: float) -> dict[int, int]:
    """Episode to the first one that equals it; those whose sums are alike are compared."""
    order = sorted(content, key=lambda e: (len(content[e]), float(content[e].mean())))
    found: dict[int, int] = {}
    for place, episode in enumerate(order):
        mine = content[episode]
        for other in order[place + 1 :]:
            if len(content[other]) != len(mine) or content[other].mean() - mine.mean() > tolerance:
                break
            if np.abs(content[other] - mine).max() <= tolerance:
                first, later = sorted((episode, other))
                found[later] = min(first, found.get(later, first))
    return found
