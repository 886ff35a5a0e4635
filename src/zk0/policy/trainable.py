"""The trainable view of a policy: the tensors that fine-tuning changes, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import nn

from zk0.digests import digest_parts

Tensors = dict[str, torch.Tensor]

# Values worked on at a time where several operations follow each other: 1 MB in float32, which stays in a core's cache.
PIECE = 1 << 18


class TensorMismatch(ValueError):
    """Tensors do not fit the policy or each other; names the first one that does not."""


def trainable_tensors(policy: nn.Module) -> Tensors:
    """Copies of the parameters that train, by name, on the CPU, in the policy's order."""
    return {n: p.detach().to("cpu", copy=True) for n, p in policy.named_parameters() if p.requires_grad}


def load_trainable(policy: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors into the policy's trainable parameters.

    Raises:
        TensorMismatch: A name is missing or unknown, or a shape or dtype differs.
    """
    own = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    check_alike(tensors, {n: p.detach() for n, p in own.items()})
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def check_names(found: Collection[str], expected: Collection[str]) -> None:
    """Compare the names of tensors.

    Raises:
        TensorMismatch: Says which is missing or unknown, and how many are.
    """
    if missing := sorted(set(expected) - set(found)):
        raise TensorMismatch(f"tensor '{missing[0]}' is missing ({len(missing)} of {len(expected)} are)")
    if unknown := sorted(set(found) - set(expected)):
        raise TensorMismatch(f"tensor '{unknown[0]}' is not one that trains ({len(unknown)} are not)")


def check_alike(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Compare names, shapes and dtypes.

    Raises:
        TensorMismatch: Says which tensor, what it is and what was expected.
    """
    check_names(tensors.keys(), expected.keys())
    for name, want in expected.items():
        have = tensors[name]
        if have.shape != want.shape:
            raise TensorMismatch(f"tensor '{name}' has shape {tuple(have.shape)}, expected {tuple(want.shape)}")
        if have.dtype != want.dtype:
            raise TensorMismatch(f"tensor '{name}' is {have.dtype}, expected {want.dtype}")


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse NaN and infinity.

    Raises:
        TensorMismatch: Names the first tensor that has any, and how many.
    """
    update_norm(tensors)


def update_norm(tensors: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm over all tensors, and the check that all their values are finite, in one pass.

    A norm is finite where every value is, unless the squares overflow; only then is there a closer look. That is a
    tenth of what ``torch.isfinite`` costs. A piece is summed in float32 and the pieces in float64, which agrees
    to a few parts in a million.

    Raises:
        TensorMismatch: Names the first tensor with a value that is not finite, and how many it has.
    """
    return math.hypot(*(_norm(name, tensor) for name, tensor in tensors.items()))


def _norm(name: str, tensor: torch.Tensor) -> float:
    flat = tensor.detach().reshape(-1)
    flat = flat if flat.is_floating_point() else flat.to(torch.float64)
    dtype = torch.promote_types(flat.dtype, torch.float32)
    norms = []
    for piece in flat.split(PIECE):
        norm = float(torch.linalg.vector_norm(piece, dtype=dtype))
        if not math.isfinite(norm):
            if not torch.isfinite(piece).all():
                wrong = int((~torch.isfinite(flat)).sum())
                raise TensorMismatch(f"tensor '{name}' has {wrong} non-finite values of {flat.numel()}")
            wide = piece.to(torch.float64)
            largest = wide.abs().max()
            norm = float(largest * torch.linalg.vector_norm(wide / largest))
        norms.append(norm)
    return math.hypot(*norms)


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """xxh3-128 over names, dtypes, shapes and bytes, in hex; independent of the mapping's order."""
    parts = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        label = f"{name}\0{whole.dtype}\0{tuple(whole.shape)}"
        parts[label] = whole.reshape(-1).view(torch.uint8).numpy()
    return digest_parts(parts)
