"""The page on a recording's quality: a row an episode, and what could be left out, ready to paste."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zk0.data.quality.judge import Judgement
from zk0.data.quality.looks import Sketch
from zk0.data.quality.remarks import ADVICE, Numbers
from zk0.files import write_text
from zk0.reporting.pages import environment, verbatim
from zk0.reporting.sparklines import Scale, sparkline
from zk0.so100 import JOINTS

PAGES = Path("results/data-check")
_MANY = 100  # episodes above which a page must save bytes


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
    content: dict[str, Any] = {
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
    page = PAGES / f"{name}.html"
    write_text(root / page, environment().get_template("recording.html.j2").render(content))
    return page


def _uris(thumbs: Mapping[int, bytes]) -> list[tuple[int, str]]:
    """Frame and picture as a data URI, in order."""
    return [(n, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}") for n, jpeg in sorted(thumbs.items())]
