"""Read a LeRobotDataset v3 folder and refuse what would spoil training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
import xxhash
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import decode_video_frames

from zk0.data.frames import ACTION, IMAGES, STATE
from zk0.data.sim.arm import JOINTS
from zk0.errors import DataError
from zk0.files import read_json

_CONVERTER = "lerobot.scripts.convert_dataset_v21_to_v30"


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset whose metadata was found to be sound.

    Attributes:
        root: Folder.
        repo_id: Its name for LeRobot and in messages.
    """

    root: Path
    repo_id: str

    @cached_property
    def info(self) -> dict[str, Any]:
        """``meta/info.json``."""
        path = self.root / "meta" / "info.json"
        try:
            return dict(read_json(path))
        except FileNotFoundError as error:
            raise DataError(f"{self.root} is no LeRobot dataset: {path} not found") from error
        except ValueError as error:
            raise DataError(str(error)) from error

    @cached_property
    def meta(self) -> LeRobotDatasetMetadata:
        """LeRobot's view of the metadata."""
        return LeRobotDatasetMetadata(self.repo_id, root=self.root)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Image features, sorted by name."""
        return tuple(sorted(name for name in self.info["features"] if name.startswith(f"{IMAGES}.")))

    def image_shape(self, camera: str) -> tuple[int, int, int]:
        """(C, H, W) of a camera."""
        feature = self.info["features"][camera]
        size = dict(zip(feature["names"], feature["shape"], strict=True))
        return int(size.get("channels") or size.get("channel") or 3), int(size["height"]), int(size["width"])

    def joint_names(self, feature: str) -> tuple[str, ...]:
        """Joints of a vector feature, without the decoration that recorders of different years add."""
        names = self.info["features"][feature].get("names") or []
        names = names.get("motors", list(names)) if isinstance(names, dict) else names
        return tuple(str(name).removeprefix("main_").removesuffix(".pos") for name in names)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every frame's numbers, in order: state, action, episode_index, task_index, timestamp."""
        columns = [STATE, ACTION, "episode_index", "frame_index", "task_index", "timestamp"]
        files = sorted((self.root / "data").glob("chunk-*/file-*.parquet"))
        if not files:
            raise DataError(f"{self.root}: no data files below data/; the recording was not finished")
        table = pd.concat([pq.read_table(file, columns=columns).to_pandas() for file in files], ignore_index=True)
        return table.sort_values(["episode_index", "frame_index"], ignore_index=True)

    @cached_property
    def task_names(self) -> dict[int, str]:
        """Task index to sentence."""
        return {
            int(row["task_index"]): str(row["task"])
            for row in self.meta.tasks.reset_index(names="task").to_dict("records")
        }

    def numbers(self, feature: str) -> np.ndarray:
        """All values of a vector feature: (N, D) float32."""
        return np.stack(self.table[feature].tolist()).astype(np.float32)

    def episode_digest(self, rows: pd.DataFrame) -> str:
        """xxh3 over an episode's states, actions and task sentences."""
        digest = xxhash.xxh3_128()
        for feature in (STATE, ACTION):
            digest.update(np.ascontiguousarray(np.stack(rows[feature].tolist()), dtype=np.float32).tobytes())
        digest.update("\n".join(self.task_names[int(i)] for i in rows["task_index"]).encode())
        return digest.hexdigest()

    def decode(self, episode: int, camera: str, timestamps: list[float]) -> torch.Tensor:
        """Decode frames of one episode: (T, 3, H, W) uint8.

        Raises:
            DataError: The video is missing or cannot be read; names file and episode.
        """
        path = self.root / self.meta.get_video_file_path(episode, camera)
        start = self.meta.episodes[episode][f"videos/{camera}/from_timestamp"]
        try:
            frames = decode_video_frames(path, [start + t for t in timestamps], 1e-2, "pyav", return_uint8=True)
        except Exception as error:  # whatever the decoder raises, the cause is this file
            raise DataError(f"{path}: video of episode {episode} is unreadable: {error}") from error
        return frames


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
    for feature in (STATE, ACTION):
        _check_numbers(dataset, feature)
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


def _check_numbers(dataset: DatasetFolder, feature: str) -> None:
    table = dataset.table
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
    for episode in dataset.table["episode_index"].unique().tolist():
        rows = dataset.table[dataset.table["episode_index"] == episode]
        for camera in dataset.cameras:
            if dataset.info["features"][camera]["dtype"] == "video":
                dataset.decode(episode, camera, [float(rows["timestamp"].iloc[-1])])
