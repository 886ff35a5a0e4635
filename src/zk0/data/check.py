"""Refuse a dataset that would spoil training."""

from __future__ import annotations

import numpy as np
import pandas as pd

from zk0.data.dataset import DatasetFolder
from zk0.data.frames import ACTION, IMAGES, STATE
from zk0.data.sim.arm import JOINTS
from zk0.errors import DataError

_CONVERTER = "lerobot.scripts.convert_dataset_v21_to_v30"


def check_dataset(dataset: DatasetFolder, fps: int) -> None:
    """Refuse a dataset on which a site must not train.

    Args:
        dataset: The folder.
        fps: Frames per second that the federation agreed on.

    Raises:
        DataError: Version 2.x, other joints, sizes or fps, missing or NaN values, no episodes,
            unreadable video. The message names dataset, feature and episode, and what to do.
    """
    info, name = dataset.info, dataset.repo_id
    version = str(info.get("codebase_version", "unknown"))
    if version.lstrip("v").startswith("2"):
        raise DataError(
            f"{name} has LeRobot format {version}; v3.0 is needed. Convert a copy with "
            f"`python -m {_CONVERTER} --repo-id={name} --root={dataset.root}`"
        )
    if not version.startswith("v3"):
        raise DataError(f"{name}: unknown LeRobot format {version}; v3.0 is needed")
    if int(info["fps"]) != fps:
        raise DataError(f"{name} has {info['fps']} frames per second, the federation {fps} (data.fps)")
    if not dataset.cameras:
        raise DataError(f"{name} has no camera; features named {IMAGES}.NAME were expected")
    for feature in (STATE, ACTION):
        _check_vector(dataset, feature)
    if not info.get("total_episodes"):
        raise DataError(f"{name} is empty: it has no episodes")
    table = dataset.table
    for feature in (STATE, ACTION):
        _check_numbers(dataset, table, feature)
    _check_videos(dataset)


def _check_vector(dataset: DatasetFolder, feature: str) -> None:
    """The feature must be a vector of the SO-100's six joints by LeRobot's names."""
    found = dataset.info["features"].get(feature)
    if found is None:
        raise DataError(f"{dataset.repo_id} has no {feature}")
    size = found["shape"][0]
    if size != len(JOINTS):
        raise DataError(f"{dataset.repo_id}: {feature} has {size} values, an SO-100 has {len(JOINTS)}")
    names = dataset.joint_names(feature)
    if names != JOINTS:
        raise DataError(f"{dataset.repo_id}: {feature} is named {', '.join(names)}; expected {', '.join(JOINTS)}")


def _check_numbers(dataset: DatasetFolder, table: pd.DataFrame, feature: str) -> None:
    values = [np.asarray(v, dtype=np.float64) for v in table[feature]]
    sizes = {v.shape for v in values}
    if sizes != {(len(JOINTS),)}:
        raise DataError(f"{dataset.repo_id}: {feature} holds values of shapes {sorted(sizes)}")
    bad = ~np.isfinite(np.stack(values)).all(axis=1)
    if bad.any():
        row = table[bad].iloc[0]
        joint = JOINTS[int(np.argmin(np.isfinite(np.asarray(row[feature], dtype=np.float64))))]
        raise DataError(
            f"{dataset.repo_id}: {feature} has {int(bad.sum())} frames with missing or NaN values, the first in "
            f"episode {int(row.episode_index)}, frame {int(row.frame_index)}, {joint}; remove or repair that episode"
        )


def _check_videos(dataset: DatasetFolder) -> None:
    """Decode the last frame of every episode and camera: a cut-off file fails there."""
    for episode, (_, stop) in dataset.rows.bounds.items():
        for camera in dataset.cameras:
            if dataset.info["features"][camera]["dtype"] == "video":
                dataset.decode(episode, camera, [float(dataset.rows.timestamps[stop - 1])])
