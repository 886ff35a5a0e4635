"""Frames of a set of episodes, ready to be drawn into batches of LeRobot's form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from zk0.data.sim.episodes import Episode

STATE = "observation.state"
ACTION = "action"
IMAGES = "observation.images"


class ImageStore(Protocol):
    """Where a frame's pictures come from: memory, or a video decoded on demand."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """The image features there are."""
        ...

    def read(self, camera: str, rows: np.ndarray) -> torch.Tensor:
        """Images of some frames: (B, 3, H, W) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class MemoryImages:
    """Images kept as bytes in memory: camera feature name to (N, H, W, 3) uint8."""

    arrays: dict[str, np.ndarray]

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def read(self, camera: str, rows: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(self.arrays[camera][rows])
        return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


@dataclass(frozen=True)
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
    def in_memory(self) -> bool:
        """Whether the images are held decoded."""
        return isinstance(self.images, MemoryImages)

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
