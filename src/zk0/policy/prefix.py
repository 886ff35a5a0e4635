"""Keys and values of a frame's image and language tokens, at every layer of the language model.

SmolVLA's prefix is image tokens, language tokens and one state token. Images and language do not
attend to the state or to the actions, so with a frozen language model their keys and values are
constants of a frame and its instruction: they can be computed without gradients, and kept.

Only what can be seen counts. Padded words, cameras that the policy knows but the data lacks
(``empty_cameras``) and padding to ``prefix_length`` are hidden from every real token and take no
position, so they are left out instead of masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from zk0.policy.attention import attend, finish, normed, project, rotate, rotation, split_heads
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import Batch, Sentences


@dataclass(frozen=True)
class Prefix:
    """What the state token and the action expert attend to.

    Attributes:
        pairs: For every layer, rotated keys and values: (B, S, H, head_dim) each.
        real: (B, S), which of them are not padding; None where all are.
        count: (B, 1), how many are: the position of the state token.
    """

    pairs: list[tuple[Tensor, Tensor]]
    real: Tensor | None
    count: Tensor


class PrefixMismatch(ValueError):
    """Cached keys and values do not fit the policy or the instructions."""


def embed_images(policy: SmolVLAPolicy, images: Mapping[str, Tensor]) -> list[Tensor]:
    """Image tokens (B, T, D) of every camera's images (B, 3, H, W) in [0, 1], in the policy's order."""
    present = {camera: images[camera] for camera in policy.config.image_features if camera in images}
    prepared, _ = policy.prepare_images(dict(present))  # images of empty cameras come after those present
    return [policy.model.vlm_with_expert.embed_image(image) for image in prepared[: len(present)]]


@torch.no_grad()
def encode_prefix(loaded: LoadedPolicy, tokens: list[Tensor], sentences: list[str]) -> Tensor:
    """Keys and values to keep in a cache.

    Args:
        loaded: Policy and processors.
        tokens: Of every camera the data has, in the policy's order, (B, T, D).
        sentences: The B instructions.

    Returns:
        (B, L, 2, S, H x head_dim), keys after rotation, in the language model's dtype, on the
        policy's device. S counts all cameras' image tokens and the words of the longest of these
        instructions; what a shorter one leaves over is zero, and may be cut off or extended freely.
    """
    policy = loaded.policy
    known = Sentences(loaded, list(dict.fromkeys(sentences)))
    words, real, padded = known.batch(known.numbers(sentences))
    device = tokens[0].device
    prefix = compute_prefix(policy, tokens, words.to(device), real.to(device), padded)
    kept = torch.stack([torch.stack(pair, dim=1) for pair in prefix.pairs], dim=1).flatten(-2)
    if prefix.real is not None:
        kept = kept * prefix.real[:, None, None, :, None]
    return kept.to(_text_model(policy).layers[0].self_attn.k_proj.weight.dtype)


def prefix_of(policy: SmolVLAPolicy, batch: Batch) -> Prefix:
    """The prefix of a batch on the policy's device, from what the batch holds: features, or images.

    Raises:
        PrefixMismatch: Its cached keys and values do not fit; says what was expected.
    """
    if "kv" in batch.features:
        return stored_prefix(policy, batch)
    with torch.set_grad_enabled(torch.is_grad_enabled() and _trains(policy)):
        tokens = list(batch.features.values()) if batch.features else embed_images(policy, batch.images)
        return compute_prefix(policy, tokens, batch.words, batch.real, batch.padded)


def compute_prefix(policy: SmolVLAPolicy, tokens: list[Tensor], words: Tensor, real: Tensor, padded: bool) -> Prefix:
    """Run image tokens (B, T, D) and words (B, W) through the language model.

    Of the last layer only keys and values are computed: nothing reads its output.
    """
    hidden = _embed(policy, tokens, words)
    images = hidden.shape[1] - words.shape[1]
    layers = _text_model(policy).layers
    visible = _visible(images, real) if padded else None
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    turn = rotation(positions, layers[0].self_attn.head_dim)
    seen = None if visible is None else visible[:, None]
    pairs = []
    for layer in layers[:-1]:
        queries, keys, values = project(layer, hidden)
        keys = rotate(keys, turn)
        pairs.append((keys, values))
        hidden = finish(layer, hidden, attend(rotate(queries, turn), keys, values, seen))
    last = layers[-1]
    hidden = normed(last, hidden)
    keys, values = (split_heads(last, p(hidden)) for p in (last.self_attn.k_proj, last.self_attn.v_proj))
    pairs.append((rotate(keys, turn), values))
    return Prefix(pairs, visible, images + real.sum(dim=1, keepdim=True))


def stored_prefix(policy: SmolVLAPolicy, batch: Batch) -> Prefix:
    """The prefix from cached keys and values (B, L, 2, S, H x head_dim), in the dtype they are used in."""
    kept, layers = batch.features["kv"], _text_model(policy).layers
    attention = layers[0].self_attn
    width = attention.k_proj.weight.shape[0]
    images = image_length(policy, batch.cameras)
    length = images + batch.words.shape[1]
    if kept.shape[1:3] != (len(layers), 2) or kept.shape[-1] != width or kept.shape[3] < length:
        raise PrefixMismatch(
            f"cached keys and values have shape {tuple(kept.shape)}, expected "
            f"({len(batch)}, {len(layers)}, 2, at least {length}, {width}): {images} image tokens and "
            f"{batch.words.shape[1]} words; delete them and let them be computed anew"
        )
    kind = kept.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else attention.k_proj.weight.dtype
    heads = kept[:, :, :, :length].to(dtype).unflatten(-1, (-1, attention.head_dim))  # type: ignore[no-untyped-call]
    visible = _visible(images, batch.real) if batch.padded else None
    return Prefix(
        [(layer[:, 0], layer[:, 1]) for layer in heads.unbind(1)],
        visible,
        images + batch.real.sum(dim=1, keepdim=True),
    )


def image_length(policy: SmolVLAPolicy, cameras: int) -> int:
    """Tokens before the words, when the data has this many of the policy's cameras."""
    config, vlm = policy.config, policy.model.vlm_with_expert
    if config.resize_imgs_with_padding is None:
        height, width = next(iter(config.image_features.values())).shape[1:]
    else:
        width, height = config.resize_imgs_with_padding
    patch, scale = vlm.config.vision_config.patch_size, vlm.config.scale_factor
    empty = min(len(config.image_features) - cameras, config.empty_cameras)
    special = 3 * (cameras + empty) if policy.model.add_image_special_tokens else 0
    tokens: int = cameras * (height // patch) * (width // patch) // scale**2 + special
    return tokens


def _embed(policy: SmolVLAPolicy, tokens: list[Tensor], words: Tensor) -> Tensor:
    """Scaled embeddings (B, S, D) of images, in the policy's order, and words."""
    model, vlm = policy.model, policy.model.vlm_with_expert
    dtype = _text_model(policy).embed_tokens.weight.dtype
    special = model.add_image_special_tokens
    batch = len(words)

    def marks(numbers: list[int]) -> Tensor:
        ids = torch.tensor(numbers).to(words.device, non_blocking=True)
        embedded: Tensor = vlm.embed_language_tokens(ids)[None].expand(batch, -1, -1)
        return embedded

    begin, end = [model.fake_image_token, model.global_image_token], [model.fake_image_token]
    pieces = []
    for image in tokens:
        # the factor as LeRobot rounds it: to the tokens' own dtype
        scaled = image.to(dtype) * float(torch.tensor(image.shape[-1] ** 0.5, dtype=dtype))
        pieces += [marks(begin), scaled, marks(end)] if special else [scaled]
    if special:  # around a camera that is missing, the marks are all that can be seen
        missing = len(policy.config.image_features) - len(tokens)
        pieces += [marks(begin + end)] * min(missing, policy.config.empty_cameras)
    embedded = vlm.embed_language_tokens(words)
    pieces.append(embedded * embedded.shape[-1] ** 0.5)
    return torch.cat(pieces, dim=1).to(torch.promote_types(dtype, model.state_proj.weight.dtype))


def _visible(images: int, real: Tensor) -> Tensor:
    return torch.cat([real.new_ones(len(real), images), real], dim=1)


def _text_model(policy: SmolVLAPolicy) -> Any:
    return policy.model.vlm_with_expert.get_vlm_model().text_model


def _trains(policy: SmolVLAPolicy) -> bool:
    return any(parameter.requires_grad for parameter in policy.model.vlm_with_expert.get_vlm_model().parameters())
