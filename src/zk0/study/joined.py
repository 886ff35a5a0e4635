"""Frames of several sites as one, each picture read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zk0.data.frames import Frames, ImageStore
from zk0.errors import DataError


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """The pictures of several stores, one after the other.

    Attributes:
        parts: The stores; all know the same cameras.
        starts: (P,) first row of each.
    """

    parts: tuple[ImageStore, ...]
    starts: np.ndarray

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.parts[0].cameras

    @property
    def fits(self) -> bool:
        return all(part.fits for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def shape(self, camera: str) -> tuple[int, int, int]:
        return self.parts[0].shape(camera)

    def read(self, camera: str, rows: np.ndarray, keep: bool = True) -> torch.Tensor:
        out = torch.empty((len(rows), *self.shape(camera)), dtype=torch.float32)
        owners = self._owners(rows)
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            out[torch.from_numpy(places)] = self.parts[owner].read(camera, rows[places] - self.starts[owner], keep)
        return out

    def digest(self, camera: str, start: int, stop: int, memo: Path | None = None) -> str:
        (owner,) = self._owners(np.array([start])).tolist()
        first = int(self.starts[owner])
        return self.parts[owner].digest(camera, start - first, stop - first, memo)

    def _owners(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, rows, side="right") - 1


def join_frames(parts: Sequence[Frames]) -> Frames:
    """Frames of several sites, one site after the other; episodes keep their indices and their pictures' digests.

    So what is kept of a site's frames (features) is found by whoever trains on several.

    Args:
        parts: At least one.

    Raises:
        DataError: Cameras, their sizes, or the numbers of joints differ.
    """
    if len(parts) == 1:
        return parts[0]
    first = _form(parts[0])
    for number, part in enumerate(parts):
        if (found := _form(part)) != first:
            raise DataError(f"frames of part {number} are {found}, those of part 0 {first}; they cannot be joined")
    lengths = [len(part) for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    return Frames(
        states=np.concatenate([part.states for part in parts]),
        actions=np.concatenate([part.actions for part in parts]),
        last=np.concatenate([part.last + start for part, start in zip(parts, starts, strict=True)]),
        episodes=np.concatenate([part.episodes for part in parts]),
        sentences=tuple(sentence for part in parts for sentence in part.sentences),
        images=JoinedImages(tuple(part.images for part in parts), starts),
    )


def _form(frames: Frames) -> str:
    """What has to be alike, in words."""
    cameras = ", ".join(f"{camera} {frames.images.shape(camera)}" for camera in frames.images.cameras)
    return f"{frames.states.shape[1]} states, {frames.actions.shape[1]} actions, {cameras or 'no camera'}"
