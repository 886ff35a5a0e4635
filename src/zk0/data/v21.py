"""Whether a v2.1 dataset is whole: its tables, words, statistics and videos, episode by episode.

LeRobot's converter takes what the metadata says for granted, and joins what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zk0.console import progress_bar
from zk0.data.dataset import TOLERANCE_S, image_shape
from zk0.data.formats import V21_TABLES, place_of
from zk0.data.info import Info
from zk0.data.layout import read_table, real_numbers, require_file, whole_numbers
from zk0.data.pictures import decode_strictly
from zk0.errors import DataError
from zk0.files import BadFileError, read_records
from zk0.so100 import ACTION, STATE

TASKS, EPISODES, STATS = V21_TABLES
_MOST_BYTES = 64 << 20
_STATS = ("min", "max", "mean", "std", "count")


def check_v21(source: Path, info: Info) -> None:
    """Refuse a v2.1 dataset whose parts contradict each other, or lack something.

    Args:
        source: Its folder; all files that its info names are there.
        info: Its info.

    Raises:
        DataError: Names file and episode, what was found and what was expected.
    """
    tasks = read_sentences(source)
    lengths = _lengths(source, info)
    _check_stats(source, list(lengths))
    total = info.total_frames
    if total is not None and total != sum(lengths.values()):
        raise DataError(
            f"{source}: meta/info.json says total_frames {total}, and {EPISODES} counts {sum(lengths.values())}; "
            "restore what is missing, or correct it"
        )
    with progress_bar() as bar:
        line = bar.add_task("decoding every picture of the source", total=len(lengths))
        for episode, length in lengths.items():
            _check_episode(source, info, tasks, episode, length)
            bar.advance(line)


def read_sentences(source: Path) -> dict[int, str]:
    """Task index to sentence, by ``meta/tasks.jsonl``.

    Raises:
        DataError: See :func:`check_v21`.
    """
    tasks = {}
    for line, entry in _lines(source, TASKS):
        index, task = entry.get("task_index"), entry.get("task")
        if type(index) is not int or not isinstance(task, str) or not task.strip():
            raise DataError(f"{source / TASKS}, line {line}: a task_index and a task that is not empty were expected")
        tasks[index] = task
    return tasks


def _lines(source: Path, name: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """The mappings in a file of one a line, with their lines' numbers."""
    try:
        return read_records(require_file(source, name), broken="none", most=_MOST_BYTES).items()
    except BadFileError as error:
        raise DataError(str(error)) from error


def _lengths(source: Path, info: Info) -> dict[int, int]:
    """Episode to its number of frames, by ``meta/episodes.jsonl``."""
    lengths: dict[int, int] = {}
    for line, entry in _lines(source, EPISODES):
        episode, length = entry.get("episode_index"), entry.get("length")
        if type(episode) is not int or type(length) is not int or length < 1 or episode in lengths:
            raise DataError(f"{source / EPISODES}, line {line}: a new episode_index and its length were expected")
        if not isinstance(entry.get("tasks"), list):
            raise DataError(f"{source / EPISODES}, line {line}: episode {episode} has no list of tasks")
        lengths[episode] = length
    _check_all(source / EPISODES, list(lengths), info.total_episodes or 0)
    return dict(sorted(lengths.items()))


def _check_all(path: Path, episodes: list[int], count: int) -> None:
    if lost := sorted(set(range(count)) - set(episodes)):
        raise DataError(
            f"{path} lacks episode {lost[0]}, though meta/info.json counts {count} episodes; restore it, or record "
            "again"
        )
    if strange := sorted(set(episodes) - set(range(count))):
        raise DataError(f"{path} knows episode {strange[0]}, though meta/info.json counts {count} episodes")


def _check_stats(source: Path, episodes: list[int]) -> None:
    known: list[int] = []
    for line, entry in _lines(source, STATS):
        episode, stats = entry.get("episode_index"), entry.get("stats")
        if type(episode) is not int or not isinstance(stats, dict):
            raise DataError(f"{source / STATS}, line {line}: an episode_index and its stats were expected")
        for feature in (STATE, ACTION):
            found = stats.get(feature)
            lost = [name for name in _STATS if not isinstance(found, dict) or not isinstance(found.get(name), list)]
            if lost:
                raise DataError(
                    f"{source / STATS}, line {line}: episode {episode} has no {lost[0]} of {feature}; restore the "
                    "file, or compute it anew with LeRobot 0.3.3"
                )
        known.append(episode)
    _check_all(source / STATS, known, len(episodes))


def _check_episode(source: Path, info: Info, tasks: Mapping[int, str], episode: int, length: int) -> None:
    place, rate = place_of(info, episode), info.fps
    name = info.data_file(**place)
    path = str(source / name)
    table = read_table(source, name, [STATE, ACTION, "episode_index", "frame_index", "task_index", "timestamp"])
    if len(table) != length:
        raise DataError(
            f"{path}: has {len(table)} frames, and {EPISODES} says that episode {episode} has {length}; restore the "
            "file, or correct the length"
        )
    if (whole_numbers(table, "episode_index", path) != episode).any():
        raise DataError(f"{path}: episode_index is not {episode} throughout; it is another episode's file")
    times = real_numbers(table, "timestamp", path)
    if (whole_numbers(table, "frame_index", path) != np.arange(length)).any():
        raise DataError(f"{path}: frame_index of episode {episode} does not count from 0 to {length - 1}")
    off = np.abs(times - np.arange(length) / rate) > min(TOLERANCE_S, 0.5 / rate)
    if off.any():
        frame = int(np.argmax(off))
        raise DataError(
            f"{path}: episode {episode}, frame {frame} has timestamp {times[frame]:.3f} s, and {frame / rate:.3f} was "
            "expected; restore the timestamps as frame_index / fps"
        )
    unknown = set(whole_numbers(table, "task_index", path).tolist()) - set(tasks)
    if unknown:
        raise DataError(f"{path}: episode {episode} has task {min(unknown)}, which {TASKS} does not know")
    for camera, feature in info.features.items():
        if feature.dtype == "video":
            video = source / info.video_file(camera, **place)
            wanted = [(float(time_s), (episode, frame)) for frame, time_s in enumerate(times)]
            size = image_shape(source, camera, feature)[1:]
            for _ in decode_strictly(source, video, camera, size, wanted, min(TOLERANCE_S, 0.5 / rate)):
                pass
