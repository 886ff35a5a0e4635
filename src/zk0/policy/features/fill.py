"""Compute the features of a block of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.policy.checkpoint import LoadedPolicy

if TYPE_CHECKING:
    from zk0.data.frames import Frames

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def network_size(policy: SmolVLAPolicy, image: tuple[int, int, int]) -> tuple[int, int]:
    """(H, W) of the network's input for images of shape (3, H, W)."""
    resize = policy.config.resize_imgs_with_padding  # (width, height)
    return (int(resize[1]), int(resize[0])) if resize else (image[1], image[2])


def token_shape(policy: SmolVLAPolicy, image: tuple[int, int, int]) -> tuple[int, int]:
    """(T, D) of an image's tokens: its patches, ``scale_factor`` squared of them in one token."""
    config = policy.model.vlm_with_expert.get_vlm_model().config
    height, width = network_size(policy, image)
    patches = (height // config.vision_config.patch_size) * (width // config.vision_config.patch_size)
    return patches // config.scale_factor**2, int(config.text_config.hidden_size)


@torch.no_grad()
def prefix_shape(
    loaded: LoadedPolicy, images: list[tuple[int, int, int]], sentences: tuple[str, ...]
) -> tuple[int, ...]:
    """(L, 2, S, H x head_dim) of a prefix with room for the longest of these instructions."""
    from zk0.policy.prefix import encode_prefix

    policy = loaded.policy
    tokens = [torch.zeros(len(sentences), *token_shape(policy, image), device=policy.config.device) for image in images]
    return tuple(encode_prefix(loaded, tokens, list(sentences)).shape[1:])


@torch.no_grad()
def image_tokens_of(loaded: LoadedPolicy, frames: Frames, camera: str, rows: np.ndarray) -> torch.Tensor:
    """Image tokens of one camera (B, T, D), on the policy's device."""
    from zk0.policy.prefix import embed_images

    image = frames.images.read(camera, rows, keep=False).to(loaded.policy.config.device)
    return embed_images(loaded.policy, {camera: image})[0]


@torch.no_grad()
def prefix_of_rows(
    loaded: LoadedPolicy, frames: Frames, cameras: list[str], rows: np.ndarray, shape: tuple[int, ...]
) -> torch.Tensor:
    """Keys and values (B, *shape), on the policy's device; words that an instruction lacks are zero."""
    from zk0.policy.prefix import encode_prefix

    tokens = [image_tokens_of(loaded, frames, camera, rows) for camera in cameras]
    kv = encode_prefix(loaded, tokens, [frames.sentences[row] for row in rows])
    return torch.nn.functional.pad(kv, (0, 0, 0, shape[2] - kv.shape[3]))


def as_bytes(features: torch.Tensor, dtype: str) -> np.ndarray:
    """(B, ...) features as they are stored: (B, frame_bytes) uint8."""
    kept = features.to(DTYPES[dtype]).cpu().contiguous()
    return kept.flatten(1).view(torch.uint8).numpy()
