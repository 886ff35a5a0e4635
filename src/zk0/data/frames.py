"""Frames of a set of episodes, ready to be drawn into batches of LeRobot's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import xxhash

from zk0.so100 import ACTION as ACTION
from zk0.so100 import IMAGES as IMAGES
from zk0.so100 import STATE as STATE

if TYPE_CHECKING:  # a site with a real arm needs no simulator
    from zk0.data.sim.expert import Episode


class ImageStore(Protocol):
    """Where a frame's pictures come from: memory, or a video."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """The image features there are."""
        ...

    @property
    def fits(self) -> bool:
        """Whether decoded images are held in memory, once they were read."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that decoded images take up now."""
        ...

    def shape(self, camera: str) -> tuple[int, int, int]:
        """Channels, height and width of a camera's pictures."""
        ...

    def read(self, camera: str, rows: np.ndarray, keep: bool = True) -> torch.Tensor:
        """Images of some frames: (B, 3, H, W) float32 in [0, 1].

        Args:
            camera: Which camera.
            rows: (B,) frame rows.
            keep: Off where they will not be read again: nothing is then kept in memory for it.
        """
        ...

    def digest(self, camera: str, start: int, stop: int, memo: Path | None = None) -> str:
        """What identifies the pictures of an episode, frames ``start`` to ``stop``.

        Args:
            camera: Which camera.
            start: The episode's first row.
            stop: The row after its last.
            memo: Folder in which to remember the answer across processes.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemoryImages:
    """Images kept as bytes in memory: camera feature name to (N, H, W, 3) uint8."""

    arrays: dict[str, np.ndarray]
    fits: bool = True

    @property
    def cameras(self) -> tuple[str, ...]:  # noqa: D102 - see ImageStore
        return tuple(self.arrays)

    @property
    def nbytes(self) -> int:  # noqa: D102 - see ImageStore
        return sum(array.nbytes for array in self.arrays.values())

    def shape(self, camera: str) -> tuple[int, int, int]:  # noqa: D102 - see ImageStore
        _, height, width, channels = self.arrays[camera].shape
        return channels, height, width

    def read(self, camera: str, rows: np.ndarray, keep: bool = True) -> torch.Tensor:  # noqa: ARG002, D102 - see ImageStore
        pixels = torch.from_numpy(self.arrays[camera][rows])
        return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)

    def digest(self, camera: str, start: int, stop: int, memo: Path | None = None) -> str:  # noqa: ARG002, D102 - see ImageStore
        pixels = np.ascontiguousarray(self.arrays[camera][start:stop])
        return "pixels " + xxhash.xxh3_128_hexdigest(pixels.tobytes())


@dataclass(frozen=True)
class Clip:
    """An episode's stretch of frames.

    Attributes:
        episode: Its index.
        start: Its first row.
        length: Its number of frames.
        digests: Camera to what identifies its pictures: equal digests, equal pictures.
    """

    episode: int
    start: int
    length: int
    digests: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Frames:
    """All frames of some episodes, in order.

    Attributes:
        states: (N, S) float32.
        actions: (N, A) float32.
        last: (N,) the row of the last frame of each frame's episode.
        episodes: (N,) episode index of each frame.
        sentences: The N instructions.
        images: Where the pictures are.
    """

    states: np.ndarray
    actions: np.ndarray
    last: np.ndarray
    episodes: np.ndarray
    sentences: tuple[str, ...]
    images: ImageStore

    def __len__(self) -> int:
        return len(self.states)

    @property
    def nbytes(self) -> int:
        """Memory held: the numbers, and the images that are decoded now."""
        numbers = (self.states, self.actions, self.last, self.episodes)
        return sum(array.nbytes for array in numbers) + 8 * len(self.sentences) + self.images.nbytes

    def clips(self, memo: Path | None = None) -> tuple[Clip, ...]:
        """The episodes and what identifies their pictures; found out when first asked for.

        Args:
            memo: Folder in which to remember it across processes, see :mod:`zk0.data.clips`.
        """
        known: dict[str, tuple[Clip, ...]] = self.__dict__
        if "_clips" not in known:
            stops = np.unique(self.last) + 1
            starts = np.append(0, stops[:-1])
            known["_clips"] = tuple(
                Clip(
                    episode=int(self.episodes[start]),
                    start=int(start),
                    length=int(stop - start),
                    digests={
                        camera: self.images.digest(camera, int(start), int(stop), memo)
                        for camera in self.images.cameras
                    },
                )
                for start, stop in zip(starts, stops, strict=True)
            )
        return known["_clips"]

    def batch(self, rows: np.ndarray, chunk: int, with_images: bool = True) -> dict[str, Any]:
        """Gather frames with the ``chunk`` actions that follow each.

        Past the end of an episode the last action is repeated and marked, as LeRobot does.

        Args:
            rows: (B,) frame rows.
            chunk: Actions per frame.
            with_images: Off where something else stands in for them.

        Returns:
            LeRobot's batch: ``observation.state`` (B, S), every camera (B, 3, H, W) in [0, 1],
            ``action`` (B, chunk, A), ``action_is_pad`` (B, chunk) and ``task``.
        """
        ahead = rows[:, None] + np.arange(chunk)
        past_end = ahead > self.last[rows, None]
        ahead = np.minimum(ahead, self.last[rows, None])
        cameras = self.images.cameras if with_images else ()
        return {
            STATE: torch.from_numpy(self.states[rows]),
            ACTION: torch.from_numpy(self.actions[ahead]),
            "action_is_pad": torch.from_numpy(past_end),
            "task": [self.sentences[row] for row in rows],
            **{camera: self.images.read(camera, rows) for camera in cameras},
        }


def from_episodes(episodes: Iterable[Episode]) -> Frames:
    """Frames of simulated episodes held in memory."""
    kept = list(episodes)
    lengths = [len(episode.states) for episode in kept]
    ends = np.cumsum(lengths)
    return Frames(
        states=np.concatenate([episode.states for episode in kept]),
        actions=np.concatenate([episode.actions for episode in kept]),
        last=np.repeat(ends - 1, lengths),
        episodes=np.repeat(np.arange(len(kept)), lengths),
        sentences=tuple(s for episode, n in zip(kept, lengths, strict=True) for s in [episode.sentence] * n),
        images=MemoryImages(
            {f"{IMAGES}.{name}": np.concatenate([e.images[name] for e in kept]) for name in kept[0].images}
        ),
    )
