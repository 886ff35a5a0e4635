"""Refuse a dataset that would spoil training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from zk0.data.agreement import check_agreement
from zk0.data.dataset import DatasetFolder
from zk0.data.formats import require_v3
from zk0.data.keys import ACTION, IMAGES, STATE
from zk0.errors import DataError
from zk0.so100 import JOINTS


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
    if info["total_episodes"] == 0:
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
    found = dataset.info["features"].get(feature)
    if found is None:
        raise DataError(f"{dataset.repo_id} has no {feature}")
    if len(found["shape"]) != 1:
        raise DataError(f"{dataset.repo_id}: {feature} has shape {found['shape']}; [{len(JOINTS)}] was expected")
    size = found["shape"][0]
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
