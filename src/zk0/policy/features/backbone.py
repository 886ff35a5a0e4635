"""What a policy's frozen backbone makes of frames: whether it is constant, the digests it depends on, computing it.

Another backbone, image size or video never has the same key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import nn

from zk0.data.frames import Frames
from zk0.digests import quick_digest
from zk0.policy.attention import covers
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.prefix import embed_images, encode_prefix
from zk0.policy.trainable import digest_tensors

FORMAT = 1
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_DIGESTS: WeakKeyDictionary[SmolVLAPolicy, dict[str, tuple[object, str]]] = WeakKeyDictionary()
_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True)
class Regime:
    """What of a frame is constant under a policy.

    Attributes:
        tokens: Image tokens: vision encoder and connector are frozen.
        prefix: Keys and values of image and language prefix: the language model is frozen as well.
        reason: What is in the way: what trains, or that only LeRobot's own forward pass serves this policy; else empty.
    """

    tokens: bool
    prefix: bool
    reason: str


def backbone_modules(policy: SmolVLAPolicy, kind: str) -> dict[str, nn.Module]:
    """The modules that decide a frame's features, by name.

    Args:
        policy: Any SmolVLA.
        kind: ``tokens`` or ``prefix``.
    """
    vlm = policy.model.vlm_with_expert.get_vlm_model()
    modules = {"vision encoder": vlm.vision_model, "connector": vlm.connector}
    return modules if kind == "tokens" else {**modules, "language model": vlm.text_model}


def regime(policy: SmolVLAPolicy) -> Regime:
    """Which features are constants under this policy, as its parameters stand now."""
    if other := covers(policy):
        return Regime(tokens=False, prefix=False, reason=other)
    training = {
        name: any(parameter.requires_grad for parameter in module.parameters())
        for name, module in backbone_modules(policy, "prefix").items()
    }
    tokens = not (training["vision encoder"] or training["connector"])
    names = [name for name, trains in training.items() if trains]
    reason = f"the {' and the '.join(names)} {'train' if len(names) > 1 else 'trains'}" if names else ""
    return Regime(tokens=tokens, prefix=tokens and not training["language model"], reason=reason)


def backbone_digest(policy: SmolVLAPolicy, kind: str) -> str:
    """Digest of the weights and the configuration of what computes the features.

    It is kept for as long as no weight was written to or replaced.
    """
    tensors = {
        f"{name}/{key}": tensor
        for name, module in backbone_modules(policy, kind).items()
        for key, tensor in module.state_dict(keep_vars=True).items()
    }
    seen = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors.values())
    known = _DIGESTS.setdefault(policy, {})
    if kind not in known or known[kind][0] != seen:
        known[kind] = (seen, quick_digest([digest_tensors(tensors), _configuration(policy, kind)]))
    return known[kind][1]


def _configuration(policy: SmolVLAPolicy, kind: str) -> dict[str, object]:
    """Settings that change results but are not weights: heads, patch size, activations, ..."""
    config = policy.model.vlm_with_expert.get_vlm_model().config
    parts = {"vision": config.vision_config} | ({"text": config.text_config} if kind == "prefix" else {})
    plain = {
        name: {k: v for k, v in part.to_dict().items() if k not in _IRRELEVANT and isinstance(v, (int, float, str))}
        for name, part in parts.items()
    }
    return {**plain, "scale_factor": config.scale_factor}


def backbone_key(loaded: LoadedPolicy, kind: str, dtype: str) -> str:
    """Key of all that does not depend on the frames: backbone, image settings, dtype, device.

    The device's type counts because its kernels round differently.
    """
    config = loaded.policy.config
    settings = {
        "format": FORMAT,
        "kind": kind,
        "dtype": dtype,
        "backbone": backbone_digest(loaded.policy, kind),
        "resize": list(config.resize_imgs_with_padding or ()),
        "device": torch.device(config.device).type,
    }
    if kind == "prefix":
        settings |= {
            "special": bool(config.add_image_special_tokens),
            "layers": policy_layers(loaded.policy),
            "words": tokenizer_digest(loaded),
        }
    return quick_digest(settings)


def policy_layers(policy: SmolVLAPolicy) -> int:
    """Language model layers that the policy uses."""
    return int(policy.model.vlm_with_expert.num_vlm_layers)


def tokenizer_digest(loaded: LoadedPolicy) -> str:
    """Digest of how instructions become words: vocabulary, merges, longest instruction."""
    step = next(s for s in loaded.preprocess.steps if hasattr(s, "input_tokenizer"))
    tokenizer = step.input_tokenizer
    if not hasattr(tokenizer, "backend_tokenizer"):
        return quick_digest([repr(tokenizer), int(loaded.policy.config.tokenizer_max_length)])
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {
        name: value for name, value in backend.items() if name not in ("padding", "truncation")
    }  # set by each call
    return quick_digest([words, int(loaded.policy.config.tokenizer_max_length)])


def image_block(network_pixels: int, device: str, block: int) -> int:
    """Frames of an episode that are encoded together.

    Fixed blocks make a frame's features the same bits whatever order frames are needed in.

    Args:
        network_pixels: Height times width of the network's input.
        device: Its type; a GPU needs larger batches than a CPU has cache for.
        block: As params say; 0 lets it be decided here.
    """
    if block:
        return block
    return 32 if device == "cuda" else min(max(2**18 // network_pixels, 1), 32)


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
    policy = loaded.policy
    tokens = [torch.zeros(len(sentences), *token_shape(policy, image), device=policy.config.device) for image in images]
    return tuple(encode_prefix(loaded, tokens, list(sentences)).shape[1:])


@torch.no_grad()
def image_tokens_of(loaded: LoadedPolicy, frames: Frames, camera: str, rows: np.ndarray) -> torch.Tensor:
    """Image tokens of one camera (B, T, D), on the policy's device."""
    image = frames.images.read(camera, rows, keep=False).to(loaded.policy.config.device)
    return embed_images(loaded.policy, {camera: image})[0]


@torch.no_grad()
def prefix_of_rows(
    loaded: LoadedPolicy, frames: Frames, cameras: list[str], rows: np.ndarray, shape: tuple[int, ...]
) -> torch.Tensor:
    """Keys and values (B, *shape), on the policy's device; words that an instruction lacks are zero."""
    tokens = [image_tokens_of(loaded, frames, camera, rows) for camera in cameras]
    kv = encode_prefix(loaded, tokens, [frames.sentences[row] for row in rows])
    return torch.nn.functional.pad(kv, (0, 0, 0, shape[2] - kv.shape[3]))


def as_bytes(features: torch.Tensor, dtype: str) -> np.ndarray:
    """(B, ...) features as they are stored: (B, frame_bytes) uint8."""
    kept = features.to(DTYPES[dtype]).cpu().contiguous()
    return kept.flatten(1).view(torch.uint8).numpy()
