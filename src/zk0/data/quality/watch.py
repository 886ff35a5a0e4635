"""From a dataset to what is judged: its numbers in degrees, and its pictures in one pass over each video."""

from __future__ import annotations

from collections import Counter

import numpy as np

from zk0.data.conventions import Joints
from zk0.data.dataset import DatasetFolder
from zk0.data.frames import IMAGES
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
        fps=float(dataset.info["fps"]),
        states={e: states[start:stop] for e, (start, stop) in bounds},
        actions={e: actions[start:stop] for e, (start, stop) in bounds},
        sentences={e: dataset.task_names[int(task)] for e, task in most.items()},
        ends=ends,
    )


def sketches_for(dataset: DatasetFolder) -> Sketches:
    """An empty sketch of a dataset's pictures, to be shown them all."""
    lengths = {episode: stop - start for episode, (start, stop) in dataset.rows.bounds.items()}
    return Sketches(lengths, float(dataset.info["fps"]))


def short(camera: str) -> str:
    """A camera's name without the prefix that all have."""
    return camera.removeprefix(f"{IMAGES}.")
