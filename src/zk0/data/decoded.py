"""Every picture of a dataset decoded once, before anything trains on it.

What was found sound is remembered in the project's cache by each file's path, size, time and inode
and by what is taken from it: a second time costs a look at the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from zk0.console import progress_bar
from zk0.data.dataset import DatasetFolder
from zk0.data.pictures import pictures
from zk0.errors import DataError
from zk0.files import digest_parts, write_json

MEMO = Path(".cache/decoded")

See = Callable[[str, int, int, np.ndarray], None]  # camera, episode, frame, and the picture, (H, W, 3) uint8


def check_pictures(dataset: DatasetFolder, cameras: Iterable[str], root: Path, see: See | None = None) -> None:
    """Decode every picture of some cameras that was not decoded before; for an onlooker, every one.

    Args:
        dataset: The folder; its metadata and tables have been checked.
        cameras: The dataset's own that are used.
        root: Project folder, which holds the cache.
        see: Is shown each picture as it passes by.

    Raises:
        DataError: See :func:`zk0.data.pictures.pictures`.
    """
    wanted = set(cameras)
    notes = {
        (camera, path): root / MEMO / _key(dataset, camera, path) for camera, path in dataset.files if camera in wanted
    }
    todo = {place: note for place, note in notes.items() if see or not note.exists()}
    if not todo:
        return
    counts = {place: _frames(dataset, *place) for place in todo}
    with progress_bar() as bar:
        line = bar.add_task(f"decoding every picture of {dataset.repo_id}", total=sum(counts.values()))
        for (camera, path), note in todo.items():
            seen = set()
            for episode, frame, picture in pictures(dataset, camera, path):
                seen.add((episode, frame))
                if see:
                    see(camera, episode, frame, picture)
                bar.advance(line)
            if len(seen) != counts[camera, path]:
                raise DataError(f"{path}: {counts[camera, path]} pictures were expected, and {len(seen)} are there")
            write_json(note, {"file": str(path), "pictures": len(seen)})


def _frames(dataset: DatasetFolder, camera: str, path: Path) -> int:
    return sum(dataset.known.lengths[episode] for episode, _, _ in dataset.files[camera, path])


def _key(dataset: DatasetFolder, camera: str, path: Path) -> str:
    stat = path.stat()
    taken = [(*stretch, dataset.known.lengths[stretch[0]]) for stretch in dataset.files[camera, path]]
    said = (stat.st_size, stat.st_mtime_ns, stat.st_ino, dataset.fps, dataset.image_shape(camera), taken)
    return f"{digest_parts({str(path.resolve()): repr(said).encode()})}.json"
