"""Read a LeRobotDataset v3 folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zk0.data.formats import Episodes, Span, read_episodes, read_tasks
from zk0.data.info import Feature, Info, read_info
from zk0.data.layout import read_table, real_numbers, whole_numbers
from zk0.digests import new_digest
from zk0.errors import DataError
from zk0.so100 import ACTION, IMAGES, STATE

if TYPE_CHECKING:
    import torch

TOLERANCE_S = 1e-2  # between a frame's time and its picture's
_INDICES = ["episode_index", "frame_index", "task_index"]
_COLUMNS = [STATE, ACTION, *_INDICES, "timestamp"]
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NUMBERS = (pa.types.is_floating, pa.types.is_integer)
_CHANNELS_LAST, _CHANNELS_FIRST = ("height", "width", "channels"), ("channels", "height", "width")


@dataclass(frozen=True)
class Rows:
    """The numbers of all frames, in order of episode and time.

    Attributes:
        states: (N, S) float32.
        actions: (N, A) float32.
        episodes: (N,) episode index.
        tasks: (N,) task index.
        timestamps: (N,) seconds since the episode's beginning.
        places: (N,) frame index in the episode.
        bounds: Episode index to its first row and the row after its last.
    """

    states: np.ndarray
    actions: np.ndarray
    episodes: np.ndarray
    tasks: np.ndarray
    timestamps: np.ndarray
    places: np.ndarray
    bounds: dict[int, tuple[int, int]]


def image_shape(root: Path, camera: str, feature: Feature) -> tuple[int, int, int]:
    """(C, H, W) of a camera.

    Args:
        root: The dataset's folder, for messages.
        camera: Its name, likewise.
        feature: What info says of it.

    Raises:
        DataError: It is not said which side is which.
    """
    shape = feature.shape
    names = feature.names or (_CHANNELS_LAST if shape[-1] in (1, 3) else _CHANNELS_FIRST)
    size = dict(zip(names, shape, strict=False))
    if len(names) != len(shape) or not {"height", "width"} <= set(size):
        raise DataError(
            f"{root}: names of {camera} in meta/info.json are {', '.join(names)}; height, width and channels were "
            "expected, in the order of its shape"
        )
    return int(size.get("channels") or size.get("channel") or 3), int(size["height"]), int(size["width"])


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset as it lies on disk; everything is read when first asked for, once.

    Attributes:
        root: Folder.
        repo_id: Its name for LeRobot and in messages.
        clips: What :mod:`zk0.data.clips` has found out about its videos.
    """

    root: Path
    repo_id: str
    clips: dict[tuple[object, ...], dict[int, str]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def info(self) -> Info:
        """``meta/info.json``, as :mod:`zk0.data.info` has checked it."""
        return read_info(self.root)

    @property
    def fps(self) -> float:
        """Frames per second of the recording."""
        return self.info.fps

    @property
    def tolerance_s(self) -> float:
        """How far a frame's time may be from its picture's: never as far as its neighbour's."""
        return min(TOLERANCE_S, 0.5 / self.fps)

    @property
    def robot_type(self) -> str:
        """Which robot it was recorded on, as its recorder wrote it."""
        return self.info.robot_type or "unknown"

    @property
    def cameras(self) -> tuple[str, ...]:
        """Image features, sorted by name."""
        return tuple(sorted(name for name in self.info.features if name.startswith(f"{IMAGES}.")))

    def image_shape(self, camera: str) -> tuple[int, int, int]:
        """Channels, height and width of a camera's pictures."""
        return image_shape(self.root, camera, self.info.features[camera])

    def written_names(self, feature: str) -> tuple[str, ...]:
        """The names in a vector feature, as its recorder wrote them."""
        return tuple(self.info.features[feature].names or ())

    def joint_names(self, feature: str) -> tuple[str, ...]:
        """Joints of a vector feature, without the decoration that recorders of different years add."""
        names = self.written_names(feature)
        return tuple(name.removeprefix("main_").removesuffix(".pos") for name in names)

    @cached_property
    def known(self) -> Episodes:
        """What ``meta/episodes`` says of every episode.

        Raises:
            DataError: It is missing, or lacks something.
        """
        return read_episodes(self.root, self.info, self._video_cameras)

    @property
    def _video_cameras(self) -> list[str]:
        return [camera for camera in self.cameras if self.info.features[camera].dtype == "video"]

    def _read(self) -> pa.Table:
        if not any((self.root / "data").rglob("*.parquet")):
            raise DataError(f"{self.root}: no data files below data/; the recording was not finished")
        files = sorted(set(self.known.tables.values()))
        try:
            tables = [read_table(self.root, file, _COLUMNS) for file in files]
            table = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(f"{self.root}: the tables below data/ do not fit together: {error}") from error
        for feature in (STATE, ACTION):
            kind = table.column(feature).type
            if not any(one(kind) for one in _LISTS) or not any(one(kind.value_type) for one in _NUMBERS):
                raise DataError(f"{self.root}/data: {feature} holds {kind}; a list of numbers was expected")
        return table

    @property
    def table(self) -> pd.DataFrame:
        """Every frame's numbers as they were written, in order; for checks, and therefore not kept."""
        table = self._read()
        for name in _INDICES:
            whole_numbers(table, name, f"{self.root}/data")
        frame: pd.DataFrame = table.to_pandas()
        return frame.sort_values(["episode_index", "frame_index"], ignore_index=True)

    @cached_property
    def rows(self) -> Rows:
        """Every frame's numbers, in order.

        Raises:
            DataError: No data files, or vectors of different sizes.
        """
        table = self._read()
        where = f"{self.root}/data"
        numbers = {name: whole_numbers(table, name, where) for name in _INDICES}
        numbers["timestamp"] = real_numbers(table, "timestamp", where)
        order = np.lexsort((numbers["frame_index"], numbers["episode_index"]))
        episodes = numbers["episode_index"][order]
        starts = np.flatnonzero(np.append(True, episodes[1:] != episodes[:-1]))
        stops = np.append(starts[1:], len(episodes))
        return Rows(
            states=self._matrix(table, STATE)[order],
            actions=self._matrix(table, ACTION)[order],
            episodes=episodes,
            tasks=numbers["task_index"][order],
            timestamps=numbers["timestamp"][order],
            places=numbers["frame_index"][order],
            bounds={int(episodes[a]): (int(a), int(b)) for a, b in zip(starts, stops, strict=True)},
        )

    def _matrix(self, table: pa.Table, feature: str) -> np.ndarray:
        """A vector feature as (N, D) float32, in the file's order."""
        column = table.column(feature)
        sizes = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(sizes) != 1 or sizes[0] is None:
            raise DataError(f"{self.root}: {feature} holds vectors of sizes {sizes}; `zk0 prepare` says where")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return np.asarray(pc.list_flatten(column).to_numpy(), dtype=np.float32).reshape(len(table), sizes[0])

    @cached_property
    def task_names(self) -> dict[int, str]:
        """Task index to sentence.

        Raises:
            DataError: ``meta/tasks.parquet`` is missing, or holds something else.
        """
        return read_tasks(self.root)

    def episode_digest(self, episode: int) -> str:
        """BLAKE2b over an episode's states, actions and task sentences."""
        start, stop = self.rows.bounds[episode]
        digest = new_digest()
        for values in (self.rows.states, self.rows.actions):
            digest.update(np.ascontiguousarray(values[start:stop]).tobytes())
        digest.update("\n".join(self.task_names[int(i)] for i in self.rows.tasks[start:stop]).encode())
        return digest.hexdigest()

    @cached_property
    def files(self) -> dict[tuple[str, Path], list[tuple[int, float, float]]]:
        """Camera and video file to the episodes in it, in order: index, start and end in seconds."""
        files: dict[tuple[str, Path], list[tuple[int, float, float]]] = {}
        for camera, spans in self.known.spans.items():
            for episode, span in sorted(spans.items(), key=lambda one: one[1].start_s):
                files.setdefault((camera, span.path), []).append((episode, span.start_s, span.end_s))
        return files

    def span(self, episode: int, camera: str) -> Span:
        """Where an episode's pictures of a camera are.

        Raises:
            DataError: The camera has no video, or the metadata does not know the episode.
        """
        found = self.known.spans.get(camera, {}).get(episode)
        if found is None:
            raise DataError(f"{self.root}: meta/episodes knows no video of {camera} for episode {episode}")
        return found

    def decode(self, episode: int, camera: str, timestamps: list[float]) -> torch.Tensor:
        """Decode frames of one episode, in one sequential read: (T, 3, H, W) uint8.

        Raises:
            DataError: The video is missing or cannot be read; names file and episode.
        """
        from lerobot.datasets.video_utils import decode_video_frames  # noqa: PLC0415 - seconds

        span = self.span(episode, camera)
        times = [span.start_s + t for t in timestamps]
        try:
            frames: torch.Tensor = decode_video_frames(span.path, times, TOLERANCE_S, "pyav", return_uint8=True)
        except Exception as error:  # whatever the decoder raises, the cause is this file
            raise DataError(f"{span.path}: video of episode {episode} is unreadable: {error}") from error
        return frames


def open_dataset(root: Path, repo_id: str) -> DatasetFolder:
    """The dataset of a folder, shared by all who open it while its tables stay as they are.

    Many sites dealt from one source so read its tables once.
    """
    tables = sorted(path for part in ("meta", "data") for path in (root / part).rglob("*.*") if path.is_file())
    stats = [(path, path.stat()) for path in tables]
    return _opened(root, repo_id, tuple((path, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats))


@lru_cache(maxsize=8)
def _opened(root: Path, repo_id: str, _tables: tuple[tuple[Path, int, int, int], ...]) -> DatasetFolder:
    return DatasetFolder(root, repo_id)
