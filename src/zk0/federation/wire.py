"""Tensors on the wire: what travels is named, typed and digested, and checked where it arrives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from zk0.policy.trainable import Tensors, digest_tensors

_DIGEST = "digest"


class WireError(ValueError):
    """A message's content is not what it must be; names the record or tensor."""


def pack(content: RecordDict, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put tensors into a message's content under ``name``, with their digest beside them."""
    content[name] = ArrayRecord({key: Array(t.cpu().contiguous().numpy()) for key, t in tensors.items()})
    content[f"{name}.{_DIGEST}"] = ConfigRecord({_DIGEST: digest_tensors(tensors)})


def unpack(content: RecordDict, name: str) -> Tensors:
    """Take tensors out of a message's content and check their digest.

    Raises:
        WireError: The record is missing, or what arrived is not what was sent.
    """
    if name not in content.array_records:
        raise WireError(f"the message has no tensors '{name}'")
    tensors = {}
    for key, array in content.array_records[name].items():
        try:
            tensors[key] = torch.from_numpy(array.numpy().copy())
        except (ValueError, TypeError, EOFError) as error:
            raise WireError(f"'{name}': tensor '{key}' cannot be read: {error}") from error
    stated = content.config_records.get(f"{name}.{_DIGEST}", ConfigRecord()).get(_DIGEST)
    found = digest_tensors(tensors)
    if stated != found:
        raise WireError(f"'{name}' has digest {found}, but its sender states {stated!r}: it was damaged or changed")
    return tensors


def payload_bytes(content: RecordDict) -> int:
    """Bytes of all arrays in a message's content, as serialised."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())
