"""The trainable view of a policy: the tensors that fine-tuning changes, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import xxhash
from torch import nn

Tensors = dict[str, torch.Tensor]


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


def check_alike(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Compare names, shapes and dtypes.

    Raises:
        TensorMismatch: Says which tensor, what it is and what was expected.
    """
    if missing := sorted(set(expected) - set(tensors)):
        raise TensorMismatch(f"tensor '{missing[0]}' is missing ({len(missing)} of {len(expected)} are)")
    if unknown := sorted(set(tensors) - set(expected)):
        raise TensorMismatch(f"tensor '{unknown[0]}' is not one that trains ({len(unknown)} are not)")
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
    for name, tensor in tensors.items():
        if not (finite := torch.isfinite(tensor)).all():
            raise TensorMismatch(f"tensor '{name}' has {int((~finite).sum())} non-finite values of {tensor.numel()}")


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """xxh3-128 over names, dtypes, shapes and bytes, in hex; independent of the mapping's order."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(torch.uint8).numpy() if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()
