"""SmolVLA's attention layers, piece by piece, so that each part of a sequence can run when and where it must.

The pieces compute what ``SmolVLMWithExpertModel`` of LeRobot computes (Shukor et al., "SmolVLA: A
Vision-Language-Action Model for Affordable and Efficient Robotics", arXiv:2506.01844), with the
rotations tabulated once a pass and PyTorch's fused attention in place of the written-out softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor
from torch.nn import functional

Rotation = tuple[Tensor, Tensor]

_WAVELENGTH = 10_000.0


def covers(policy: SmolVLAPolicy) -> str | None:
    """Why the split forward pass does not serve this policy; None where it does."""
    if policy.config.adapt_to_pi_aloha:
        return "it converts joints to and from pi-0's Aloha space (adapt_to_pi_aloha)"
    if policy._rtc_enabled():
        return "real-time chunking is on (rtc_config)"
    if policy.config.normalization_mapping.get(FeatureType.VISUAL.value) not in (None, NormalizationMode.IDENTITY):
        return "it normalises images"
    return None


def rotation(positions: Tensor, head_dim: int) -> Rotation:
    """Cosines and sines of rotary position embeddings (Su et al., "RoFormer", 2021).

    Args:
        positions: (B, T), or (1, T) for positions that a whole batch shares.
        head_dim: Size of a head.

    Returns:
        Two tensors (B, T, 1, head_dim / 2), float32.
    """
    half = head_dim // 2
    exponents = (2.0 / head_dim) * torch.arange(half, dtype=torch.float32, device=positions.device)
    radians = positions[..., None, None].to(torch.float32) / _WAVELENGTH**exponents
    return radians.cos(), radians.sin()


def rotate(heads: Tensor, by: Rotation) -> Tensor:
    """Turn (B, T, H, head_dim) by its positions; computed in float32, returned in its own dtype."""
    cos, sin = by
    one, two = heads.to(torch.float32).chunk(2, dim=-1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1).to(heads.dtype)


def project(layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's queries, keys and values of (B, T, D), not yet rotated: (B, T, heads, head_dim) each."""
    hidden, attention = normed(layer, hidden), layer.self_attn
    return (
        split_heads(layer, attention.q_proj(hidden)),
        split_heads(layer, attention.k_proj(hidden)),
        split_heads(layer, attention.v_proj(hidden)),
    )


def normed(layer: Any, hidden: Tensor) -> Tensor:
    """What a layer's projections read: its input, normalised, in their dtype."""
    found: Tensor = layer.input_layernorm(hidden).to(layer.self_attn.q_proj.weight.dtype)
    return found


def split_heads(layer: Any, projected: Tensor) -> Tensor:
    """(B, T, H x head_dim) as (B, T, H, head_dim)."""
    heads: Tensor = projected.unflatten(-1, (-1, layer.self_attn.head_dim))  # type: ignore[no-untyped-call]
    return heads


def attend(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """Attention of (B, T, H, d) over (B, S, H_kv, d), where H / H_kv query heads share a key head.

    The heads that share one are laid out as further queries of it, so keys and values are never
    repeated in memory.

    Args:
        queries: Rotated.
        keys: Rotated.
        values: Not rotated.
        seen: (B or 1, T or 1, S), which keys a query may attend to; None = all.

    Returns:
        (B, T, H x d).
    """
    batch, length, heads, size = queries.shape
    shared = keys.shape[2]
    group = heads // shared
    folded = queries.view(batch, length, shared, group, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = None
    if seen is not None:  # (B, 1, queries, S); one row serves all queries where they see alike
        mask = seen[:, None]
        if seen.shape[1] > 1:
            mask = mask[:, :, None].expand(-1, 1, group, length, -1).flatten(2, 3)
    kind = folded.dtype
    found = functional.scaled_dot_product_attention(
        folded, keys.transpose(1, 2).to(kind), values.transpose(1, 2).to(kind), attn_mask=mask
    )
    unfolded: Tensor = found.unflatten(2, (group, length))  # type: ignore[no-untyped-call]
    return unfolded.permute(0, 3, 1, 2, 4).flatten(2)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer: output projection, feed-forward, and the two residual connections."""
    out = layer.self_attn.o_proj(attended.to(layer.self_attn.o_proj.weight.dtype))
    out = (out + hidden).to(out.dtype)
    found: Tensor = out + layer.mlp(layer.post_attention_layernorm(out))
    return found
