"""What features depend on, as digests: another backbone, image size or video never has the same key."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

import torch
import xxhash
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features.regime import backbone_modules
from zk0.policy.trainable import digest_tensors

FORMAT = 1
_DIGESTS: WeakKeyDictionary[SmolVLAPolicy, dict[str, tuple[object, str]]] = WeakKeyDictionary()
_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def digest_of(value: Any) -> str:
    """xxh3-128 of a JSON value, in hex."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


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
        known[kind] = (seen, digest_of([digest_tensors(tensors), _configuration(policy, kind)]))
    return known[kind][1]


def _configuration(policy: SmolVLAPolicy, kind: str) -> dict[str, Any]:
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
    return digest_of(settings)


def policy_layers(policy: SmolVLAPolicy) -> int:
    """Language model layers that the policy uses."""
    return int(policy.model.vlm_with_expert.num_vlm_layers)


def tokenizer_digest(loaded: LoadedPolicy) -> str:
    """Digest of how instructions become words: vocabulary, merges, longest instruction."""
    step = next(s for s in loaded.preprocess.steps if hasattr(s, "input_tokenizer"))
    tokenizer = step.input_tokenizer
    if not hasattr(tokenizer, "backend_tokenizer"):
        return digest_of([repr(tokenizer), int(loaded.policy.config.tokenizer_max_length)])
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {
        name: value for name, value in backend.items() if name not in ("padding", "truncation")
    }  # set by each call
    return digest_of([words, int(loaded.policy.config.tokenizer_max_length)])


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
