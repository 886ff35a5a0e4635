"""The public mixture: the episodes on which the embedded base is pretrained, recorded in parts side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from zk0.data.recorders import side_by_side
from zk0.data.sim.expert import Episode, record_episodes
from zk0.data.sim.rooms import NAMED, Room
from zk0.data.sim.tasks import PUBLIC, SimTask, find_task

_PARTS = 2


def public_mixture(folder: Path, episodes: int, noise: float, rooms: float, image_size: int) -> list[Episode]:
    """Record what is not there yet, in two processes, and load all.

    Args:
        folder: One file a part; a part that is there is not recorded again.
        episodes: Demonstrations of each public task; half as many for pointing, which is easy.
        noise: Disturbance while recording, see :func:`zk0.data.sim.expert.record_episode`.
        rooms: Share of the episodes that stand each in a room of its own, of those that no source can name.
        image_size: Pixels of both cameras.
    """
    jobs, counts = {}, {}
    for number, task in enumerate(PUBLIC):
        for part in range(_PARTS):
            name = f"{task.name}-{part}"
            first = 1_000_000 * (number + 1) + 500_000 * part
            counts[name] = episodes // (2 * _PARTS if task.verb == "point" else _PARTS)
            path = folder / f"{name}.npz"
            if not path.exists():
                jobs[name] = partial(_record_part, task.name, first, counts[name], noise, rooms, image_size, path)
    if jobs:
        side_by_side(jobs, counts, _PARTS)
    return [episode for name in sorted(counts) for episode in _load_part(folder / f"{name}.npz")]


def _record_part(
    task: str,
    first: int,
    count: int,
    noise: float,
    rooms: float,
    image_size: int,
    path: Path,
    finished: Callable[[], None],
) -> None:
    episodes = []
    for episode in _episodes(find_task(task), first, count, noise, rooms, image_size):
        episodes.append(episode)
        finished()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(".partial.npz")
    np.savez(
        partial_file,
        lengths=[len(e.states) for e in episodes],
        seeds=[e.seed for e in episodes],
        sentences=[e.sentence for e in episodes],
        places=np.stack([e.place for e in episodes]),
        states=np.concatenate([e.states for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        **{f"image_{name}": np.concatenate([e.images[name] for e in episodes]) for name in episodes[0].images},
    )
    partial_file.rename(path)


def _episodes(task: SimTask, first: int, count: int, noise: float, rooms: float, image_size: int) -> Iterator[Episode]:
    """Those in the shared room, then one in each of the others; a room's number belongs to the part and its place."""
    seeds, apart = itertools.count(first), round(rooms * count)
    yield from record_episodes(task, seeds, count - apart, image_size, noise)
    for number in range(NAMED + first, NAMED + first + apart):
        yield from record_episodes(task, seeds, 1, image_size, noise, Room.of(number))


def _load_part(path: Path) -> list[Episode]:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    cuts = np.cumsum(arrays["lengths"])[:-1]
    split = {k: np.split(v, cuts) for k, v in arrays.items() if k in ("states", "actions") or k.startswith("image_")}
    return [
        Episode(
            seed=int(arrays["seeds"][i]),
            sentence=str(arrays["sentences"][i]),
            states=split["states"][i],
            actions=split["actions"][i],
            images={k.removeprefix("image_"): v[i] for k, v in split.items() if k.startswith("image_")},
            place=arrays["places"][i],
        )
        for i in range(len(arrays["lengths"]))
    ]
