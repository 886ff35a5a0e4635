"""The trainable view of a policy: the tensors that fine-tuning changes, and nothing else; and keeping them in a folder.

A folder of tensors has a record of what they must be: what became of them since they were saved is noticed. A kill, a
full disk, a bad block or a hand may have cut a file short, changed a number or taken a file away. Each ends in one kind
of error, which says what it is; whoever reads adds what to do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from zk0.digests import digest_parts, digest_value
from zk0.files import BadFileError, read_mapping, replaced_folder, write_json

Tensors = dict[str, torch.Tensor]

# Values worked on at a time where several operations follow each other: 1 MB in float32, which stays in a core's cache.
PIECE = 1 << 18
RECORD = "state.json"


class TensorMismatch(ValueError):
    """Tensors do not fit the policy or each other; names the first one that does not."""


class DamagedError(ValueError):
    """What is there is not what was saved; the message names the file and ends without a full stop."""


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
    for piece in (flat,) if flat.numel() <= PIECE else flat.split(PIECE):  # type: ignore[no-untyped-call]
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


def write_kept(
    folder: Path, record: Mapping[str, Any], parts: Mapping[str, Tensors], known: Mapping[str, str] | None = None
) -> None:
    """Write a folder, in one step, in place of what was there.

    Args:
        folder: Where.
        record: What JSON can hold; ``tensors`` and ``digest`` are added to it.
        parts: Tensors by the name of their file; where a part has none, there is no file.
        known: Digests of parts that need not be computed again.
    """
    known = known or {}
    with replaced_folder(folder) as temporary:
        digests = {}
        for name, tensors in parts.items():
            if tensors:
                save_file(tensors, _file(temporary, name))
                digests[name] = known.get(name) or digest_tensors(tensors)
        content = json.loads(json.dumps({**record, "tensors": digests}, allow_nan=False))  # as it will be read
        write_json(temporary / RECORD, {**content, "digest": digest_value(content)})


def read_kept(folder: Path) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Read what :func:`write_kept` wrote: the record, and the parts that have tensors.

    Raises:
        DamagedError: It is not what was written, whatever became of it; or an earlier zk0 wrote it.
    """
    path = folder / RECORD
    try:
        content = read_mapping(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except BadFileError as error:
        raise DamagedError(str(error)) from error
    if "tensors" not in content:
        raise DamagedError(f"{path} was written by an earlier zk0, or by something else: it has no digests")
    if (digest := content.pop("digest", None)) != digest_value(content):
        raise DamagedError(f"{path} is not what was saved: its content does not have the digest {digest}")
    return content, {name: _part(_file(folder, name), digest) for name, digest in content["tensors"].items()}


def _part(file: Path, digest: str) -> Tensors:
    try:
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise DamagedError(f"{file} is missing") from error
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{file} is cut short or damaged ({error})") from error
    if (found := digest_tensors(tensors)) != digest:
        raise DamagedError(f"{file} has digest {found}, but {digest} was saved")
    return tensors


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
