"""Image tokens of a frozen backbone, computed once.

In SmolVLA's fine-tuning default the vision encoder and its connector are frozen and images are not
augmented, so a frame's image tokens never change. They are computed for all frames in one pass, in
a fixed order and batch size, so that they are the same bits whenever and wherever a run is resumed,
and then stand in for the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.data.frames import Frames
from zk0.policy.checkpoint import LoadedPolicy

_BATCH = 32


@dataclass(frozen=True)
class ImageTokens:
    """Tokens of every frame.

    Attributes:
        tokens: Camera to (N, T, D) float32, on the CPU.
    """

    tokens: dict[str, torch.Tensor]

    @contextmanager
    def used_by(self, policy: SmolVLAPolicy, rows: np.ndarray) -> Iterator[None]:
        """Within the block, the policy takes these rows' tokens instead of images in its batch."""
        device = policy.config.device
        chosen = [tokens[rows].to(device) for tokens in self.tokens.values()]
        masks = [torch.ones(len(rows), dtype=torch.bool, device=device) for _ in chosen]
        backbone = policy.model.vlm_with_expert
        policy.prepare_images = lambda batch: (chosen, masks)  # type: ignore[method-assign]
        backbone.embed_image = lambda image: image  # type: ignore[method-assign]
        try:
            yield
        finally:
            del policy.prepare_images, backbone.embed_image  # the class's own methods show again


def regime_holds(policy: SmolVLAPolicy) -> bool:
    """Whether the vision encoder and connector are frozen, so that tokens are constants."""
    vlm = policy.model.vlm_with_expert.get_vlm_model()
    modules = (vlm.vision_model, vlm.connector)
    return not any(p.requires_grad for module in modules for p in module.parameters())


@torch.no_grad()
def _encode(loaded: LoadedPolicy, frames: Frames) -> ImageTokens:
    policy = loaded.policy
    cameras = [camera for camera in loaded.cameras if camera in frames.images.cameras]
    pieces: dict[str, list[torch.Tensor]] = {camera: [] for camera in cameras}
    for start in range(0, len(frames), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(frames)))
        batch = {camera: frames.images.read(camera, rows).to(policy.config.device) for camera in cameras}
        images, _ = policy.prepare_images(batch)
        for camera, image in zip(cameras, images, strict=True):
            pieces[camera].append(policy.model.vlm_with_expert.embed_image(image).float().cpu())
    return ImageTokens({camera: torch.cat(parts) for camera, parts in pieces.items()})


class _Kept:
    """Tokens by backbone and frames, for as long as both live."""

    def __init__(self) -> None:
        self.by_policy: WeakKeyDictionary[Any, dict[int, tuple[Frames, ImageTokens]]] = WeakKeyDictionary()


_kept = _Kept()


def image_tokens(loaded: LoadedPolicy, frames: Frames) -> ImageTokens | None:
    """The frames' tokens, computed when first asked for; None where the regime does not hold.

    Only frames whose images are held in memory are worth it: elsewhere the tokens would not fit.
    """
    if not frames.in_memory or not regime_holds(loaded.policy):
        return None
    known = _kept.by_policy.setdefault(loaded.policy, {})
    if id(frames) not in known:
        known[id(frames)] = (frames, _encode(loaded, frames))
    return known[id(frames)][1]


@contextmanager
def batch_for(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """A preprocessed batch of some rows, with cached tokens in place of images where they are."""
    tokens = image_tokens(loaded, frames)
    if tokens is None:
        yield loaded.preprocess(frames.batch(rows, loaded.chunk))
        return
    with tokens.used_by(loaded.policy, rows):
        yield loaded.preprocess(frames.batch(rows, loaded.chunk, with_images=False))
