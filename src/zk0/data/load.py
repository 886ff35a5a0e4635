"""From a manifest to frames that can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from zk0.data.clips import CLIPS, clip_digest, identity
from zk0.data.conventions import JointMap
from zk0.data.dataset import DatasetFolder, open_dataset
from zk0.data.frames import Frames
from zk0.data.manifest import Manifest
from zk0.errors import DataError


class VideoImages:
    """Images decoded when they are asked for.

    Args:
        dataset: Whose videos.
        sources: Camera names to the dataset's own.
        episodes: (N,) episode of each frame, frames of an episode side by side.
        timestamps: (N,) seconds since the episode's beginning.
        fits: Decode a camera as a whole when it is first read, and keep that.
    """

    def __init__(
        self,
        dataset: DatasetFolder,
        sources: dict[str, str],
        episodes: np.ndarray,
        timestamps: np.ndarray,
        fits: bool = False,
    ) -> None:
        self.dataset, self.sources, self.fits = dataset, sources, fits
        self._episodes, self._timestamps = episodes, timestamps
        self._kept: dict[str, torch.Tensor] = {}

    @property
    def cameras(self) -> tuple[str, ...]:  # noqa: D102 - see ImageStore
        return tuple(self.sources)

    @property
    def nbytes(self) -> int:  # noqa: D102 - see ImageStore
        return sum(pixels.nbytes for pixels in self._kept.values())

    def shape(self, camera: str) -> tuple[int, int, int]:  # noqa: D102 - see ImageStore
        return self.dataset.image_shape(self.sources[camera])

    def read(self, camera: str, rows: np.ndarray, keep: bool = True) -> torch.Tensor:  # noqa: D102 - see ImageStore
        if self.fits and keep and camera not in self._kept:
            self._kept[camera] = self._decode(camera, np.arange(len(self._episodes)))
        if camera in self._kept:
            pixels = self._kept[camera][torch.from_numpy(rows)]
        else:
            needed, places = np.unique(rows, return_inverse=True)
            pixels = self._decode(camera, needed)[torch.from_numpy(places)]
        return pixels.to(torch.float32).div_(255.0)

    def _decode(self, camera: str, rows: np.ndarray) -> torch.Tensor:
        """Ascending rows as (B, 3, H, W) uint8; neighbours of one episode in one sequential read."""
        apart = (np.diff(rows) != 1) | (np.diff(self._episodes[rows]) != 0)
        out = torch.empty((len(rows), *self.shape(camera)), dtype=torch.uint8)
        done = 0
        for run in np.split(rows, np.flatnonzero(apart) + 1):
            episode = int(self._episodes[run[0]])
            frames = self.dataset.decode(episode, self.sources[camera], self._timestamps[run].tolist())
            if frames.shape[1:] != out.shape[1:]:
                raise DataError(
                    f"{self.dataset.root}: {self.sources[camera]} of episode {episode} is {tuple(frames.shape[1:])}, "
                    f"but meta/info.json says {tuple(out.shape[1:])}"
                )
            out[done : done + len(run)] = frames
            done += len(run)
        return out

    def digest(self, camera: str, start: int, stop: int, memo: Path | None = None) -> str:  # noqa: D102 - see ImageStore
        packets = clip_digest(self.dataset, int(self._episodes[start]), self.sources[camera], memo)
        shown = np.rint(self._timestamps[start:stop] * self.dataset.fps).astype(np.int64)
        return f"video {packets} {xxhash.xxh3_64_hexdigest(shown.tobytes())}"


def dataset_of(manifest: Manifest, root: Path) -> DatasetFolder:
    """The dataset a manifest speaks of, shared by all of its sites; ``root`` is the project's folder."""
    return open_dataset(root / manifest.root, manifest.repo_id)


def load_frames(manifest: Manifest, root: Path, episodes: Sequence[int], decoded_limit_bytes: int) -> Frames:
    """The frames of some of a manifest's episodes; their images are decoded when first asked for.

    Of a recording at a higher rate they are those that a recorder at the federation's rate would have
    written: its states, pictures and commands at those moments. Joint values are in degrees.

    Args:
        manifest: The partition.
        root: Project folder.
        episodes: Usually its ``train_episodes`` or ``held_out_episodes``.
        decoded_limit_bytes: Keep decoded images in memory if all fit in this; else decode each time.

    Raises:
        DataError: An episode is missing or no longer what the manifest was made of.
    """
    dataset = dataset_of(manifest, root)
    rows = dataset.rows
    wanted, cameras = sorted(set(episodes)), manifest.camera_sources.values()
    for episode in wanted:
        known = manifest.episode_digests[episode]
        if episode not in rows.bounds or identity(dataset, episode, cameras, root / CLIPS) != known:
            raise DataError(
                f"partition '{manifest.site}': episode {episode} of {dataset.root} is missing or has changed since "
                "`zk0 prepare`; run it again"
            )
    return _frames_of(dataset, wanted, manifest.camera_sources, manifest.every, manifest.joint_map, decoded_limit_bytes)


def recorded_frames(dataset: DatasetFolder, episode: int) -> Frames:
    """An episode as it was recorded: every frame, camera and number, by the recording's own names and in its units.

    Raises:
        DataError: The dataset has no such episode, or cannot be read.
    """
    return _frames_of(dataset, [episode], {camera: camera for camera in dataset.cameras})


def _frames_of(
    dataset: DatasetFolder,
    episodes: Sequence[int],
    cameras: dict[str, str],
    every: int = 1,
    joint_map: JointMap | None = None,
    decoded_limit_bytes: int = 0,
) -> Frames:
    rows = dataset.rows
    bounds = np.array([rows.bounds[episode] for episode in episodes]).reshape(-1, 2)
    taken = [np.arange(start, stop, every) for start, stop in bounds]
    chosen = np.concatenate(taken)
    lengths = np.array([len(rows_of) for rows_of in taken])
    states, actions = rows.states[chosen], rows.actions[chosen]
    if joint_map is not None:
        states, actions = joint_map.apply(states), joint_map.apply(actions)
    index = rows.episodes[chosen]
    size = sum(int(np.prod(dataset.image_shape(own))) for own in cameras.values()) * len(chosen)
    return Frames(
        states=states,
        actions=actions,
        last=np.repeat(np.cumsum(lengths) - 1, lengths),
        episodes=index,
        sentences=tuple(dataset.task_names[int(task)] for task in rows.tasks[chosen]),
        images=VideoImages(dataset, cameras, index, rows.timestamps[chosen], fits=size <= decoded_limit_bytes),
    )
