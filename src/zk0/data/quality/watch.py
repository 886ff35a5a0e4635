"""From a dataset to what is judged: its numbers in degrees, and its pictures in one pass over each video."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np

from zk0.data.conventions import Joints
from zk0.data.dataset import DatasetFolder
from zk0.data.keys import IMAGES
from zk0.data.quality.remarks import Numbers
from zk0.data.quality.sketch import Sketches


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
        """See :data:`zk0.data.decoded.See`."""
        self.sketches.see(camera.removeprefix(f"{IMAGES}."), episode, frame, picture)
