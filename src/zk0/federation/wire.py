"""Tensors on the wire: what travels is named, typed, encoded and digested, and checked where it arrives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from zk0.digests import digest_parts
from zk0.federation import codecs
from zk0.federation.codecs import Encoded, Form
from zk0.federation.protocol import HEADER, WireError
from zk0.params import Codec
from zk0.policy.trainable import Tensors
from zk0.words import brief

_DIGEST = "digest"

# The tensors that a message may carry: by record, by tensor, what each must look like.
Wanted = Mapping[str, Mapping[str, Form]]


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
        stated, found = _stated(content, name), _digest(record)
        if stated != found:
            raise WireError(f"'{name}' has digest {found}, but its sender states {stated!r}: it was damaged or changed")
    return decode(content, name, codec)


def check(content: RecordDict, wanted: Wanted) -> None:
    """Refuse content that is not the tensors wanted, all of them and nothing else, before any is decoded.

    Only what is stated and lengths are looked at, so it costs the same for tensors of any size.

    Raises:
        WireError: Names the record or tensor, what it is and what was expected.
    """
    known = {HEADER, *wanted, *(f"{name}.{_DIGEST}" for name in wanted)}
    if strange := [name for name in content if name not in known]:
        raise WireError(f"the message holds '{strange[0]}', which was not asked for ({len(strange)} such)")
    for name, forms in wanted.items():
        record = record_in(content, name, ArrayRecord)
        if record is None:
            raise WireError(f"the message has no tensors '{name}'")
        stated = _stated(content, name)
        if not isinstance(stated, str) or len(stated) > 64 or not stated.isalnum():
            raise WireError(f"'{name}' comes without a digest")
        if missing := [key for key in forms if key not in record]:
            raise WireError(f"'{name}': tensor '{missing[0]}' is missing ({len(missing)} of {len(forms)} are)")
        if strange := [key for key in record if key not in forms]:
            raise WireError(f"'{name}': tensor '{strange[0]}' was not asked for ({len(strange)} such)")
        for key, form in forms.items():
            if fault := _fault(record[key], form):
                raise WireError(f"'{name}': tensor '{key}' {fault}")


def _fault(array: Array, form: Form) -> str | None:
    if array.dtype != form.name:
        return f"is encoded as '{array.dtype}', expected '{form.name}'"
    # Flower takes true for 1, and numpy does not
    if array.shape != form.shape or any(type(extent) is not int for extent in array.shape):
        return f"has shape {brief(array.shape)}, expected {brief(form.shape)}"
    if len(array.data) != form.payload_bytes:
        return f"has {len(array.data)} bytes, expected {form.payload_bytes} for shape {brief(form.shape)}"
    return None


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


def _stated(content: RecordDict, name: str) -> object:
    """The digest that a record's sender states; None where there is none."""
    beside = record_in(content, f"{name}.{_DIGEST}", ConfigRecord)
    return beside.get(_DIGEST) if beside is not None else None


def _digest(record: ArrayRecord) -> str:
    """xxh3-128 over names, forms, shapes and bytes, in hex; independent of the order."""
    return digest_parts({f"{name}\0{a.dtype}\0{tuple(a.shape)}": a.data for name, a in record.items()})
