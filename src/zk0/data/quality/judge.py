"""All remarks on one recording: from its numbers in degrees, and from one pass over each of its videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zk0.data.conventions import Joints
from zk0.data.dataset import DatasetFolder
from zk0.data.quality.across import calibration, cameras, doubles, words
from zk0.data.quality.looks import Sketch, Sketches, looks
from zk0.data.quality.motion import ends, following, jumps, lengths, stillness
from zk0.data.quality.remarks import ADVICE, Numbers, Remark
from zk0.so100 import IMAGES


@dataclass(frozen=True)
class Judgement:
    """What was remarked.

    Attributes:
        remarks: By episode, those on the whole recording first; grave ones before others.
    """

    remarks: tuple[Remark, ...]

    @property
    def whole(self) -> list[Remark]:
        """The remarks on the recording as a whole."""
        return [remark for remark in self.remarks if remark.episode is None]

    def on(self, episode: int) -> list[Remark]:
        """The remarks on one episode."""
        return [remark for remark in self.remarks if remark.episode == episode]

    @property
    def episodes(self) -> list[int]:
        """The episodes with remarks, in order."""
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
    moved = {name: {e: grey[0] for e, grey in sketch.grey.items()} for name, sketch in sketches.items()}
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


def numbers_of(dataset: DatasetFolder, joints: Joints) -> Numbers:
    """What the arm did in every episode.

    Args:
        dataset: A valid one.
        joints: What its joint values are taken for.
    """
    rows, to_degrees = dataset.rows, joints.map
    bounds = rows.bounds.items()
    states, actions = (v if to_degrees is None else to_degrees.apply(v) for v in (rows.states, rows.actions))
    ends = None
    if joints.convention == "normalised" and to_degrees is not None:
        ends = np.sort(to_degrees.apply(np.array([[-100.0] * 5 + [0.0], [100.0] * 6])), axis=0)
    most = {e: Counter(rows.tasks[start:stop].tolist()).most_common(1)[0][0] for e, (start, stop) in bounds}
    return Numbers(
        fps=dataset.fps,
        states={e: states[start:stop] for e, (start, stop) in bounds},
        actions={e: actions[start:stop] for e, (start, stop) in bounds},
        sentences={e: dataset.task_names[int(task)] for e, task in most.items()},
        ends=ends,
    )


class Watch:
    """Sketches a dataset's pictures while its check decodes them."""

    def __init__(self, dataset: DatasetFolder) -> None:
        self._dataset = dataset

    @cached_property
    def sketches(self) -> Sketches:
        """What was kept; empty before the first picture."""
        lengths = {episode: stop - start for episode, (start, stop) in self._dataset.rows.bounds.items()}
        return Sketches(lengths, self._dataset.fps)

    def see(self, camera: str, episode: int, frame: int, picture: np.ndarray) -> None:
        """See :data:`zk0.data.pictures.See`."""
        self.sketches.see(camera.removeprefix(f"{IMAGES}."), episode, frame, picture)
