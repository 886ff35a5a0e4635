"""Tensors on the wire: what travels is named, typed, encoded and digested, and checked where it arrives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from zk0.federation import codecs
from zk0.federation.codecs import Encoded
from zk0.files import digest_parts
from zk0.params import Codec
from zk0.policy.trainable import Tensors

_DIGEST = "digest"


class WireError(ValueError):
    """A message's content is not what it must be; names the record or tensor."""


def encode(tensors: Mapping[str, torch.Tensor], codec: Codec = "fp32") -> ArrayRecord:
    """Tensors as a record of Flower's.

    Where the codec needs none, no copy is made: the record's bytes are the tensors' own, so what
    was encoded must not be written to afterwards.

    Raises:
        TensorMismatch: A lossy codec was given a value that is not finite; names the tensor.
    """
    return record_of(codecs.encode_all(codecs.codec_named(codec), tensors))


def record_of(encoded: Mapping[str, Encoded]) -> ArrayRecord:
    """What a codec made, as a record of Flower's."""
    record = ArrayRecord()
    for name, part in encoded.items():
        array = Array(part.form, part.shape, "zk0", b"")
        array.data = part.payload  # type: ignore[assignment]  # Flower takes any buffer of bytes, and a view is no copy
        record[name] = array
    return record


def put(content: RecordDict, name: str, record: ArrayRecord) -> None:
    """Put a record into a message's content under ``name``, with its digest beside it."""
    content[name] = record
    content[f"{name}.{_DIGEST}"] = ConfigRecord({_DIGEST: _digest(record)})


def unpack(content: RecordDict, name: str, codec: Codec = "fp32") -> Tensors:
    """Take tensors out of a message's content, and check that they are what was sent.

    Raises:
        WireError: The record is missing or its digest differs; or as :func:`decode`.
    """
    if (record := record_in(content, name, ArrayRecord)) is not None:
        beside = record_in(content, f"{name}.{_DIGEST}", ConfigRecord)
        stated = beside.get(_DIGEST) if beside is not None else None
        found = _digest(record)
        if stated != found:
            raise WireError(f"'{name}' has digest {found}, but its sender states {stated!r}: it was damaged or changed")
    return decode(content, name, codec)


def decode(content: RecordDict, name: str, codec: Codec = "fp32") -> Tensors:
    """Take tensors out of a message's content without a look at their digest.

    They may share memory with the message, and with its sender where both are in one process: not
    to be written to.

    Raises:
        WireError: The record is missing, was made by another codec or cannot be decoded; names the tensor.
    """
    record = record_in(content, name, ArrayRecord)
    if record is None:
        raise WireError(f"the message has no tensors '{name}'")
    encoded = {key: Encoded(array.dtype, tuple(array.shape), array.data) for key, array in record.items()}
    try:
        return codecs.decode_all(codecs.codec_named(codec), encoded)
    except codecs.CodecError as error:
        raise WireError(f"'{name}': {error}") from error


def payload_bytes(content: RecordDict) -> int:
    """Bytes of all arrays in a message's content, as serialised."""
    return sum(len(array.data) for array in arrays_in(content))


def arrays_in(content: RecordDict) -> list[Array]:
    """All arrays of a message's content."""
    return [array for record in content.values() if isinstance(record, ArrayRecord) for array in record.values()]


def record_in[R: (ArrayRecord, ConfigRecord)](content: RecordDict, name: str, kind: type[R]) -> R | None:
    """The record of that name and kind, or None.

    Flower's own ``content.array_records`` ties a content to itself: an update of hundreds of
    megabytes would then stay in memory until Python looks for such circles, many updates later.
    """
    record = content.get(name)
    return record if isinstance(record, kind) else None


def _digest(record: ArrayRecord) -> str:
    """xxh3-128 over names, forms, shapes and bytes, in hex; independent of the order."""
    return digest_parts({f"{name}\0{a.dtype}\0{tuple(a.shape)}": a.data for name, a in record.items()})
