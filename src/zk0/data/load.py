"""From a manifest to frames that can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zk0.data.dataset import DatasetFolder
from zk0.data.frames import ACTION, STATE, Frames, ImageStore, MemoryImages
from zk0.data.manifest import Manifest
from zk0.errors import DataError


@dataclass(frozen=True)
class VideoImages:
    """Images decoded each time they are asked for; ``sources`` maps camera names to the dataset's own."""

    dataset: DatasetFolder
    sources: dict[str, str]
    episodes: np.ndarray
    timestamps: np.ndarray

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def read(self, camera: str, rows: np.ndarray) -> torch.Tensor:
        frames = [
            self.dataset.decode(int(self.episodes[row]), self.sources[camera], [float(self.timestamps[row])])[0]
            for row in rows
        ]
        return torch.stack(frames).to(torch.float32).div_(255.0)


def dataset_of(manifest: Manifest, root: Path) -> DatasetFolder:
    """The dataset a manifest speaks of; ``root`` is the project's folder."""
    return DatasetFolder(root / manifest.root, manifest.repo_id)


def load_frames(manifest: Manifest, root: Path, episodes: Sequence[int], decoded_limit_bytes: int) -> Frames:
    """Load the frames of some of a manifest's episodes.

    Args:
        manifest: The partition.
        root: Project folder.
        episodes: Usually its ``train_episodes`` or ``held_out_episodes``.
        decoded_limit_bytes: Decode all images into memory if they fit in this; else on demand.

    Raises:
        DataError: An episode is missing or no longer what the manifest was made of.
    """
    dataset = dataset_of(manifest, root)
    table = dataset.table
    table = table[table["episode_index"].isin(list(episodes))].reset_index(drop=True)
    for episode in episodes:
        rows = table[table["episode_index"] == episode]
        if rows.empty or dataset.episode_digest(rows) != manifest.episode_digests[episode]:
            raise DataError(
                f"partition '{manifest.site}': episode {episode} of {dataset.root} is missing or has changed since "
                "`zk0 prepare`; run it again"
            )
    index = table["episode_index"].to_numpy()
    ends = np.flatnonzero(np.append(index[1:] != index[:-1], True))
    last = np.repeat(ends, np.diff(np.append(-1, ends)))
    images = _images(dataset, manifest.camera_sources, index, table["timestamp"].to_numpy(), decoded_limit_bytes)
    return Frames(
        states=np.stack(table[STATE].tolist()).astype(np.float32),
        actions=np.stack(table[ACTION].tolist()).astype(np.float32),
        last=last,
        episodes=index,
        sentences=tuple(dataset.task_names[int(task)] for task in table["task_index"]),
        images=images,
    )


def _images(
    dataset: DatasetFolder, sources: dict[str, str], episodes: np.ndarray, timestamps: np.ndarray, limit: int
) -> ImageStore:
    size = sum(int(np.prod(dataset.image_shape(own))) for own in sources.values()) * len(episodes)
    if size > limit:
        return VideoImages(dataset, sources, episodes, timestamps)
    arrays = {}
    for camera, own in sources.items():
        decoded = [
            dataset.decode(int(episode), own, timestamps[episodes == episode].tolist())
            for episode in dict.fromkeys(episodes.tolist())
        ]
        arrays[camera] = torch.cat(decoded).permute(0, 2, 3, 1).contiguous().numpy()
    return MemoryImages(arrays)
