"""Frozen features computed when asked for: what the cache on disk gives, without the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch

from zk0.data.frames import Frames
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.prefix import embed_images, encode_prefix

if TYPE_CHECKING:
    from zk0.policy.features import FrameFeatures

Kind = Literal["tokens", "prefix"]


class Computed:
    """Features of rows as the cache would hold them, computed when asked for."""

    def __init__(self, loaded: LoadedPolicy, frames: Frames, kind: Kind, dtype: torch.dtype = torch.float32) -> None:
        self.loaded, self.frames, self.kind, self.dtype = loaded, frames, kind, dtype

    def ensure(self, rows: np.ndarray) -> None:
        """Nothing is kept."""

    @torch.no_grad()
    def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        cameras = [camera for camera in self.loaded.cameras if camera in self.frames.images.cameras]
        images = {camera: self.frames.images.read(camera, rows) for camera in cameras}
        tokens = embed_images(self.loaded.policy, images)
        if self.kind == "prefix":
            kept = encode_prefix(self.loaded, tokens, [self.frames.sentences[row] for row in rows])
            return {"kv": kept.to(self.dtype)}
        return {camera: token.to(self.dtype) for camera, token in zip(cameras, tokens, strict=True)}


def features_of(
    loaded: LoadedPolicy, frames: Frames, kind: Kind | None, dtype: torch.dtype = torch.float32
) -> FrameFeatures | None:
    return None if kind is None else cast("FrameFeatures", Computed(loaded, frames, kind, dtype))
