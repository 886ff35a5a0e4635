"""A v2.1 dataset converted to v3, into a new folder; the one it is made from stays as it is.

LeRobot's own converter works in place, so it is given a folder of links to the dataset's files. What
it made is compared with what it was made from before it gets its name: numbers, instructions, and
the first and last picture of every episode, which a wrong offset in a joined video would change.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash
from lerobot.datasets.video_utils import decode_video_frames

from zk0.console import progress_bar
from zk0.data.dataset import DatasetFolder
from zk0.data.formats import INFO, V21_TABLES, missing_files, place_of, read_info, require_v3
from zk0.data.info import Info
from zk0.data.v21 import check_v21, read_sentences
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.so100 import ACTION, STATE

NOTE = Path("meta/zk0_conversion.json")
_LINKED = ("data", "videos")
_SPARE_BYTES = 100_000_000
_COMPARED = [STATE, ACTION, "task_index", "timestamp"]


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        folder: The new dataset.
        episodes: How many it has.
        frames: How many it has.
        fresh: False where it had been made before, of the same source.
    """

    folder: Path
    episodes: int
    frames: int
    fresh: bool


def convert_dataset(source: Path, target: Path) -> Conversion:
    """Convert a dataset into a new folder; a second time nothing is done.

    What a killed conversion left behind is removed by the next one.

    Args:
        source: A v2.1 dataset's folder; only read.
        target: The new folder.

    Raises:
        DataError: The source is no whole v2.1 dataset, the target exists and is something else, there is no room,
            another conversion into it is running, or LeRobot's converter made something else of it.
    """
    source, target = source.resolve(), target.absolute()
    info = _check_source(source)
    digest = _digest(source)
    if target.exists():
        return _made_before(source, target, digest)
    if target.is_relative_to(source):
        raise DataError(f"{target} is inside {source}, which is not written to; choose a folder elsewhere")
    with _workshop(target) as work:
        _check_room(source, work)
        with _quiet_libraries(work / "cache"):
            built = _convert(source, work)
            dataset = DatasetFolder(built, source.name)
            _compare(source, info, dataset)
        write_json(built / NOTE, {"converted_from": "v2.1", "source": source.name, "source_digest": digest})
        built.replace(target)
    return Conversion(target, len(dataset.rows.bounds), len(dataset.rows.states), fresh=True)


def _check_source(source: Path) -> Info:
    """The info of a v2.1 dataset all of whose files are there."""
    info = read_info(source)
    version = info.version
    if version.startswith("v3"):
        raise DataError(f"{source} has LeRobot format {version} already; name it as local:{source} as it is")
    if version != "v2.1":
        require_v3(info, str(source), f"local:{source}")
    if not info.total_episodes:
        raise DataError(f"{source} is empty: it has no episodes")
    if missing := missing_files(source, info):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{source} is not a whole v2.1 dataset: {', '.join(missing[:3])}{more} not found, though meta/info.json "
            f"counts {info.total_episodes} episodes; restore what is missing, or record again"
        )
    check_v21(source, info)
    return info


def _digest(source: Path) -> str:
    """Over the metadata's content and the other files' names and sizes: enough to know a source again."""
    digest = xxhash.xxh3_128()
    for path in sorted(p for part in ("meta", *_LINKED) for p in (source / part).rglob("*") if p.is_file()):
        name = path.relative_to(source)
        content = path.read_bytes() if name.parts[0] == "meta" else str(path.stat().st_size).encode()
        digest.update(f"{name.as_posix()}\0".encode() + content + b"\0")
    return digest.hexdigest()


def _made_before(source: Path, target: Path, digest: str) -> Conversion:
    try:
        made = read_json(target / NOTE)["source_digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        made = False
    if not made:
        raise DataError(
            f"{target} exists and is no conversion of {source}; nothing is overwritten, choose a new folder"
        )
    rows = DatasetFolder(target, target.name).rows
    return Conversion(target, len(rows.bounds), len(rows.states), fresh=False)


@contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A folder beside the target to work in, for one process at a time; gone at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.parent / f".{target.name}.converting"
    work.mkdir(exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends, however it ends
        except BlockingIOError as error:
            raise DataError(f"another conversion into {target} is running") from error
        if not work.exists():
            raise DataError(f"another conversion into {target} ended just now; run it again")
        try:
            for left in work.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(handle)


def _check_room(source: Path, work: Path) -> None:
    """Videos are copied, and the converter keeps one joined file in the system's temporary folder."""
    need = sum(path.stat().st_size for part in _LINKED for path in (source / part).rglob("*") if path.is_file())
    free = shutil.disk_usage(work).free
    if need + _SPARE_BYTES > free:
        raise DataError(
            f"converting {source} needs about {(need + _SPARE_BYTES) / 1e9:.1f} GB beside the target, and "
            f"{free / 1e9:.1f} GB are free; make room, or choose a target on another disk"
        )


@contextmanager
def _quiet_libraries(cache: Path) -> Iterator[None]:
    """Keep what the converter's libraries cache out of the user's folders, and libav's chatter off the terminal."""
    import datasets  # noqa: PLC0415 - slow
    from datasets import config  # noqa: PLC0415 - slow

    before = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = cache
    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)
    lerobot = logging.getLogger("lerobot")
    level = lerobot.level
    lerobot.setLevel(logging.ERROR)  # it warns of every count in the old metadata that the new has no place for
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE = before
        lerobot.setLevel(level)


def _convert(source: Path, work: Path) -> Path:
    """Run LeRobot's converter on links to the source's files; its progress bars go to stderr."""
    from lerobot.scripts import convert_dataset_v21_to_v30 as lerobot  # noqa: PLC0415 - slow

    copy = work / source.name
    (copy / "meta").mkdir(parents=True)
    for table in V21_TABLES:
        shutil.copy(source / table, copy / table)
    # The converter drops these counts and fails where a recorder did not write them.
    write_json(copy / "meta" / "info.json", {"total_chunks": 0, "total_videos": 0, **read_json(source / INFO)})
    for path in (p for part in _LINKED for p in (source / part).rglob("*") if p.is_file()):
        link = copy / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    try:
        lerobot.convert_dataset(source.name, root=copy, push_to_hub=False)
    except Exception as error:  # whatever a library below the converter raises, this dataset is the cause
        raise DataError(f"LeRobot's converter cannot convert {source}: {type(error).__name__}: {error}") from error
    return copy


def _compare(source: Path, info: Info, dataset: DatasetFolder) -> None:
    """Refuse a conversion that says something else than its source.

    Raises:
        DataError: Names the episode and what differs.
    """
    rows = dataset.rows
    count = info.total_episodes or 0
    if sorted(rows.bounds) != list(range(count)):
        raise DataError(f"{source}: of {count} episodes {len(rows.bounds)} were converted; nothing was kept")
    tasks = read_sentences(source)
    with progress_bar() as bar:
        line = bar.add_task("comparing with the source", total=count)
        for episode, (start, stop) in rows.bounds.items():
            place = place_of(info, episode)
            table = pq.read_table(source / info.data_file(**place), columns=_COMPARED)
            wrong = _different_numbers(table, rows.states[start:stop], rows.actions[start:stop])
            found = [dataset.task_names[int(task)] for task in rows.tasks[start:stop]]
            if found != [tasks.get(task) for task in table.column("task_index").to_pylist()]:
                wrong = wrong or "instructions"
            times = table.column("timestamp").to_pylist()
            for camera in (name for name in dataset.cameras if dataset.info.features[name].dtype == "video"):
                video = source / info.video_file(camera, **place)
                if wrong is None and not _same_pictures(video, dataset, episode, camera, [times[0], times[-1]]):
                    wrong = f"pictures of {camera}"
            if wrong:
                raise DataError(f"{source}: {wrong} of episode {episode} differ after conversion; nothing was kept")
            bar.advance(line)


def _different_numbers(table: pa.Table, states: np.ndarray, actions: np.ndarray) -> str | None:
    for name, values in ((STATE, states), (ACTION, actions)):
        was = np.asarray(table.column(name).to_pylist(), dtype=np.float32)
        if was.shape != values.shape or not np.array_equal(was, values, equal_nan=True):
            return name
    return None


def _same_pictures(video: Path, dataset: DatasetFolder, episode: int, camera: str, times: list[float]) -> bool:
    try:
        was = [decode_video_frames(video, [time], 1e-2, "pyav", return_uint8=True) for time in times]
    except Exception as error:  # whatever the decoder raises, the cause is this file
        raise DataError(f"{video}: video of episode {episode} is unreadable: {error}") from error
    return all(
        torch.equal(before, dataset.decode(episode, camera, [time])) for before, time in zip(was, times, strict=True)
    )
