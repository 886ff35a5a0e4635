"""An episode's joints as a small drawing: a lane a joint, the position over its command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from zk0.data.quality.remarks import Numbers
from zk0.so100 import JOINTS

WIDTH, LANE, MARGIN = 220, 17, 2  # in the drawing's own units
_LEAST_DEG = 5.0  # a joint that hardly moves is a flat line, not an enlarged tremble


@dataclass(frozen=True)
class Scale:
    """(6,) lowest positions and (6,) ways, alike for all episodes: one that lies elsewhere is seen to."""

    low: np.ndarray
    way: np.ndarray

    @classmethod
    def of(cls, numbers: Numbers) -> Scale:
        """The scale that shows all positions of a recording."""
        every = np.concatenate(list(numbers.states.values()))
        low, high = every.min(axis=0), every.max(axis=0)
        spare = np.maximum(_LEAST_DEG - (high - low), 0.0) / 2
        return cls(low - spare, high - low + 2 * spare)


def sparkline(states: np.ndarray, actions: np.ndarray, scale: Scale, points: int) -> Markup:
    """An SVG drawing of one episode.

    Args:
        states: (T, 6) positions.
        actions: (T, 6) commands.
        scale: Of the recording.
        points: Stretches of time that are drawn; the lowest and highest position of each are kept, so that no
            single wrong reading is lost.
    """
    lanes = []
    for joint in range(len(JOINTS)):
        top = joint * LANE
        for kind, values in (("told", actions), ("done", states)):
            heights = 1 - np.clip((values[:, joint] - scale.low[joint]) / scale.way[joint], 0, 1)
            y = top + MARGIN + heights * (LANE - 2 * MARGIN)
            lanes.append(f'<polyline class="{kind} j{joint}" points="{_points(y, points)}"/>')
    height = LANE * len(JOINTS)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" aria-hidden="true">{"".join(lanes)}</svg>'
    )


def _points(y: np.ndarray, points: int) -> str:
    """``x,y`` pairs of a line, thinned."""
    x = np.linspace(0, WIDTH, len(y)) if len(y) > 1 else np.zeros(1)
    kept: list[int] = []
    for part in np.array_split(np.arange(len(y)), min(points, len(y))):
        kept += sorted({int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])})
    return " ".join(f"{x[i]:.0f},{y[i]:.1f}" for i in dict.fromkeys(kept))
