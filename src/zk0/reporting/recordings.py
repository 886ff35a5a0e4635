"""The page on a recording's quality: a row an episode, and what could be left out, ready to paste.

An episode's joints are a small drawing: a lane a joint, the position over its command.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from zk0.data.quality.judge import Judgement
from zk0.data.quality.looks import Sketch
from zk0.data.quality.remarks import ADVICE, Numbers
from zk0.files import write_text
from zk0.records.paths import RECORDING_PAGES
from zk0.reporting.pages import environment, verbatim
from zk0.so100 import JOINTS

_MANY = 100  # episodes above which a page must save bytes
WIDTH, LANE, MARGIN = 220, 17, 2  # in the drawing's own units
_LEAST_DEG = 5.0  # a joint that hardly moves is a flat line, not an enlarged tremble


def write_recording_page(
    root: Path,
    name: str,
    source: str,
    numbers: Numbers,
    sketches: Mapping[str, Sketch],
    judgement: Judgement,
    left_out: Sequence[int] = (),
) -> Path:
    """Write ``results/data-check/NAME.html``, one file that loads nothing.

    Args:
        root: Project folder.
        name: The source's, in params.
        source: As params write it.
        numbers: Of the recording.
        sketches: Camera's name to its pictures.
        judgement: The remarks on them.
        left_out: Episodes that params leave out already.

    Returns:
        The page's path, relative to the project.
    """
    points = 60 if len(numbers.states) <= _MANY else 30
    scale = Scale.of(numbers)
    rows = [
        {
            "episode": episode,
            "seconds": len(states) / numbers.fps,
            "frames": len(states),
            "sentence": numbers.sentences[episode],
            "line": sparkline(states, numbers.actions[episode], scale, points),
            "pictures": {name: _uris(one.thumbs.get(episode, {})) for name, one in sorted(sketches.items())},
            "remarks": judgement.on(episode),
        }
        for episode, states in numbers.states.items()
    ]
    content = {
        "name": name,
        "source": source,
        "rows": rows,
        "judgement": judgement,
        "ticked": sorted({*judgement.grave, *left_out}),
        "left_out": left_out,
        "kinds": sorted({remark.kind for remark in judgement.remarks}, key=list(ADVICE).index),
        "advice": ADVICE,
        "joints": [joint.replace("_", " ") for joint in JOINTS],
        "minutes": sum(len(states) for states in numbers.states.values()) / numbers.fps / 60,
        "styles": verbatim("styles.css") + verbatim("recording.css"),
        "script": verbatim("recording.js"),
    }
    page = RECORDING_PAGES / f"{name}.html"
    write_text(root / page, environment().get_template("recording.html.j2").render(content))
    return page


def _uris(thumbs: Mapping[int, bytes]) -> list[tuple[int, str]]:
    """Frame and picture as a data URI, in order."""
    return [(n, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}") for n, jpeg in sorted(thumbs.items())]


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
