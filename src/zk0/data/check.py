"""Refuse a dataset that would spoil training, or whose metadata and tables contradict each other."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from zk0.data.dataset import DatasetFolder
from zk0.data.formats import require_v3
from zk0.data.layout import require_file
from zk0.errors import DataError
from zk0.so100 import ACTION, IMAGES, JOINTS, STATE

_SHOWN = 10  # episodes that a message lists


def check_dataset(
    dataset: DatasetFolder, fps: int, every: int = 1, name: str = "SITE", cameras: Iterable[str] | None = None
) -> None:
    """Refuse a dataset on which a site must not train.

    Args:
        dataset: The folder.
        fps: Frames per second that the federation agreed on.
        every: Only each ``every``-th frame is to be taken, so it must record that many times ``fps``.
        name: The source's name in params.
        cameras: The dataset's cameras that are used; all of them if not given.

    Raises:
        DataError: Another format than v3, other joints, sizes or rate, missing files, missing or NaN values, no
            episodes, metadata and tables that contradict each other. The message names dataset, feature and episode,
            and what to do.
    """
    info, repo_id = dataset.info, dataset.repo_id
    check_joints(dataset)
    require_v3(info, repo_id, str(dataset.root))
    _check_rate(dataset, fps, every, name)
    if not dataset.cameras:
        raise DataError(f"{repo_id} has no camera; features named {IMAGES}.NAME were expected")
    if info.total_episodes == 0:
        raise DataError(f"{repo_id} is empty: it has no episodes")
    table = dataset.table  # with what is missing or of another size, to say where
    for feature in (STATE, ACTION):
        _check_numbers(dataset, table, feature)
    check_agreement(dataset, dataset.cameras if cameras is None else cameras)


def check_joints(dataset: DatasetFolder) -> None:
    """Refuse another robot, of whatever format: nothing that its owner repairs or converts would change that.

    Raises:
        DataError: States or actions are not a vector of the SO-100's six joints by LeRobot's names.
    """
    for feature in (STATE, ACTION):
        _check_vector(dataset, feature)


def _check_rate(dataset: DatasetFolder, fps: int, every: int, name: str) -> None:
    """The dataset's rate must be the federation's, times the stride that params give it."""
    rate = dataset.fps
    if rate == fps * every:
        return
    found = f"{dataset.repo_id} has {rate:g} frames per second, the federation {fps} (data.fps)"
    stride = rate / fps
    if not stride.is_integer():
        advice = (
            "frames between frames cannot be made up; choose a data.fps of which every site's rate is a whole multiple"
        )
    elif stride == 1:
        advice = f"take {name} out of data.every, which says {every} for it"
    else:
        advice = f"to take one frame in {int(stride)} of it, say data.every: {{{name}: {int(stride)}}}"
        advice += f", not {every}" if every > 1 else ""
    raise DataError(f"{found}: {advice}")


def _check_vector(dataset: DatasetFolder, feature: str) -> None:
    found = dataset.info.features.get(feature)
    if found is None:
        raise DataError(f"{dataset.repo_id} has no {feature}")
    if len(found.shape) != 1:
        raise DataError(f"{dataset.repo_id}: {feature} has shape {found.shape}; [{len(JOINTS)}] was expected")
    size = found.shape[0]
    if size != len(JOINTS):
        arms = "; record each arm as a site of its own" if size == 2 * len(JOINTS) else ""
        raise DataError(f"{dataset.repo_id}: {feature} has {size} values, an SO-100 has {len(JOINTS)}{arms}")
    names = dataset.joint_names(feature)
    if names != JOINTS:
        raise DataError(f"{dataset.repo_id}: {feature} is named {', '.join(names)}; expected {', '.join(JOINTS)}")


def _check_numbers(dataset: DatasetFolder, table: pd.DataFrame, feature: str) -> None:
    missing = np.full(len(JOINTS), np.nan)
    values = [missing if v is None else np.asarray(v, dtype=np.float64) for v in table[feature]]
    sizes = {v.shape for v in values}
    if sizes != {(len(JOINTS),)}:
        raise DataError(f"{dataset.repo_id}: {feature} holds values of shapes {sorted(sizes)}")
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(np.stack(values).astype(np.float32)).all(axis=1)
    if bad.any():
        row = table[bad].iloc[0]
        joint = JOINTS[int(np.argmin(np.abs(values[int(np.argmax(bad))]) <= np.finfo(np.float32).max))]
        raise DataError(
            f"{dataset.repo_id}: {feature} has {int(bad.sum())} frames with missing or NaN values, the first in "
            f"episode {int(row.episode_index)}, frame {int(row.frame_index)}, {joint}; remove or repair that episode"
        )


def check_agreement(dataset: DatasetFolder, cameras: Iterable[str]) -> None:
    """Refuse a dataset whose parts contradict each other; nothing is decoded.

    Args:
        dataset: The folder.
        cameras: The dataset's own whose videos are used.

    Raises:
        DataError: Names the file or episode, what was found and what was expected.
    """
    _check_files(dataset)
    _check_episodes(dataset)
    _check_totals(dataset)
    _check_frames(dataset)
    _check_tasks(dataset)
    for camera in cameras:
        if camera in dataset.known.spans:
            _check_stretches(dataset, camera)


def _check_files(dataset: DatasetFolder) -> None:
    """Tables that nothing names would be left out without a word."""
    named = set(dataset.known.tables.values())
    for path in sorted((dataset.root / "data").rglob("*.parquet")):
        if (name := path.relative_to(dataset.root)) not in named:
            require_file(dataset.root, name)
            raise DataError(
                f"{path}: meta/episodes names no episode in this file, so its frames would be left out; restore "
                "meta/episodes, or delete the file"
            )


def _check_episodes(dataset: DatasetFolder) -> None:
    known, bounds = dataset.known.lengths, dataset.rows.bounds
    if lost := sorted(set(known) - set(bounds)):
        files = sorted({dataset.known.tables[episode].as_posix() for episode in lost})
        raise DataError(
            f"{dataset.repo_id}: meta/episodes knows {_episodes(lost)}, and {', '.join(files[:3])} has no frames of "
            "it; restore the file, or delete the episode with `lerobot-edit-dataset`"
        )
    if strange := sorted(set(bounds) - set(known)):
        raise DataError(
            f"{dataset.repo_id}: data/ has {_episodes(strange)}, which meta/episodes does not know; restore "
            "meta/episodes"
        )
    for episode, (start, stop) in bounds.items():
        places = dataset.rows.places[start:stop]
        if wrong := np.flatnonzero(places != np.arange(stop - start)).tolist():
            found, row = int(places[wrong[0]]), wrong[0]
            what = f"frame {found} is there twice" if found < row else f"frame {row} is missing"
            raise DataError(
                f"{dataset.repo_id}: episode {episode}: {what} (frame_index is {found} where {row} was expected); "
                "restore the table, or delete the episode"
            )
        if known[episode] != stop - start:
            raise DataError(
                f"{dataset.repo_id}: episode {episode} has {stop - start} frames in data/, and meta/episodes says "
                f"{known[episode]}; restore the table, or delete the episode"
            )


def _episodes(episodes: list[int]) -> str:
    more = f" and {len(episodes) - _SHOWN} more" if len(episodes) > _SHOWN else ""
    return f"episode{'s' if len(episodes) > 1 else ''} {', '.join(map(str, episodes[:_SHOWN]))}{more}"


def _check_totals(dataset: DatasetFolder) -> None:
    for key, said, count in (
        ("total_episodes", dataset.info.total_episodes, len(dataset.rows.bounds)),
        ("total_frames", dataset.info.total_frames, len(dataset.rows.states)),
    ):
        if said not in (None, count):
            raise DataError(
                f"{dataset.repo_id}: meta/info.json says {key} {said}, and there are {count}; restore "
                f"what is missing, or write {count} there"
            )


def _check_frames(dataset: DatasetFolder) -> None:
    """Frames must follow each other as the rate says, or other pictures belong to them than it seems."""
    rows, rate = dataset.rows, dataset.fps
    for episode, (start, stop) in rows.bounds.items():
        times = rows.timestamps[start:stop]
        steps = np.diff(times)
        if len(steps) and abs(float(np.median(steps)) * rate - 1) > 0.1:
            raise DataError(
                f"{dataset.repo_id}: frames of episode {episode} are {float(np.median(steps)):.4f} s apart, and "
                f"{rate:g} frames per second would be {1 / rate:.4f}; meta/info.json or the timestamps are wrong"
            )
        expected = np.arange(stop - start) / rate
        if wrong := np.flatnonzero(np.abs(times - expected) > dataset.tolerance_s).tolist():
            frame = wrong[0]
            raise DataError(
                f"{dataset.repo_id}: episode {episode}, frame {frame} has timestamp {times[frame]:.3f} s, and "
                f"{expected[frame]:.3f} was expected of it ({len(wrong)} frames are off): other pictures would be "
                "shown with it; restore the timestamps as frame_index / fps, or delete the episode"
            )


def _check_tasks(dataset: DatasetFolder) -> None:
    unknown = ~np.isin(dataset.rows.tasks, list(dataset.task_names))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataError(
            f"{dataset.repo_id}: episode {int(dataset.rows.episodes[row])} has task {int(dataset.rows.tasks[row])}, "
            "which meta/tasks.parquet does not know; restore that file, or correct the episode's task_index"
        )


def _check_stretches(dataset: DatasetFolder, camera: str) -> None:
    """Every episode needs a stretch of video of its own, as long as it is."""
    rate = dataset.fps
    for episode, span in dataset.known.spans[camera].items():
        name = span.path.relative_to(dataset.root)
        require_file(dataset.root, name)
        last_s = (dataset.known.lengths[episode] - 1) / rate
        if span.start_s < -dataset.tolerance_s or span.end_s - span.start_s < last_s - dataset.tolerance_s:
            raise DataError(
                f"{name} of {dataset.repo_id}: meta/episodes gives episode {episode} the stretch from "
                f"{span.start_s:.3f} to {span.end_s:.3f} s, and its {dataset.known.lengths[episode]} frames need "
                f"{last_s + 1 / rate:.3f} s; restore meta/episodes, or record that episode again"
            )
    for (kind, path), stretches in dataset.files.items():
        if kind != camera:
            continue
        for (one, start_s, _), (other, next_s, _) in pairwise(stretches):
            end_s = start_s + (dataset.known.lengths[one] - 1) / rate
            if next_s < end_s + 0.5 / rate:
                raise DataError(
                    f"{Path(path).relative_to(dataset.root)} of {dataset.repo_id}: episodes {one} and {other} claim "
                    f"the same pictures: {one} from {start_s:.3f} to {end_s + 1 / rate:.3f} s, {other} from "
                    f"{next_s:.3f} s; restore meta/episodes, or record again"
                )
