"""All remarks on one recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zk0.data.quality.doubles import doubles
from zk0.data.quality.following import following
from zk0.data.quality.lengths import lengths, stillness
from zk0.data.quality.looks import looks
from zk0.data.quality.motion import ends, jumps
from zk0.data.quality.remarks import ADVICE, Numbers, Remark
from zk0.data.quality.sessions import calibration, cameras
from zk0.data.quality.sketch import Sketch
from zk0.data.quality.words import words


@dataclass(frozen=True)
class Judgement:
    """What was remarked.

    Attributes:
        remarks: By episode, those on the whole recording first; grave ones before others.
    """

    remarks: tuple[Remark, ...]

    @property
    def whole(self) -> list[Remark]:
        """On the recording as a whole."""
        return [remark for remark in self.remarks if remark.episode is None]

    def on(self, episode: int) -> list[Remark]:
        """On one episode."""
        return [remark for remark in self.remarks if remark.episode == episode]

    @property
    def episodes(self) -> list[int]:
        """Those with remarks."""
        return sorted({remark.episode for remark in self.remarks if remark.episode is not None})

    @property
    def grave(self) -> list[int]:
        """Episodes on which training would do harm, unless somebody knows better."""
        return sorted({remark.episode for remark in self.remarks if remark.episode is not None and remark.grave})


def judge(numbers: Numbers, sketches: Mapping[str, Sketch]) -> Judgement:
    """Everything that there is to remark.

    Args:
        numbers: Of a valid recording.
        sketches: Camera's name to its pictures; cameras may be missing.
    """
    moved = {name: {e: _first(grey) for e, grey in sketch.grey.items()} for name, sketch in sketches.items()}
    remarks = [
        *lengths(numbers),
        *stillness(numbers),
        *jumps(numbers),
        *ends(numbers),
        *following(numbers),
        *calibration(numbers),
        *looks(numbers, sketches),
        *cameras(moved),
        *doubles(numbers, sketches),
        *words(numbers),
    ]
    order = list(ADVICE)
    remarks.sort(key=lambda r: (-1 if r.episode is None else r.episode, not r.grave, order.index(r.kind)))
    return Judgement(tuple(remarks))


def _first(grey: np.ndarray) -> np.ndarray:
    return np.asarray(grey[0])
