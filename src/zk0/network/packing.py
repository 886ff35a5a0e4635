"""Many tensors as one, for Flower's services: there every array is some objects, and every object a request or two.

An update of a nano policy's 47 tensors is 83 objects, each a request on every one of six hops; packed, it is 8. Both
ends of the network do this; in one process nobody does, where it would be a copy for nothing. Tensors are packed
record by record, so that what several sites are sent alike stays alike, and is uploaded once.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Annotated

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from zk0.words import fault

_INDEX = "packed"
_ONE = "all"

_Text = Annotated[str, Field(max_length=1000)]
_Extent = Annotated[int, Field(ge=0, lt=2**40)]
_Shape = Annotated[list[_Extent], Field(max_length=16)]
_Part = tuple[_Text, _Text, _Shape, _Text, Annotated[int, Field(lt=2**40)]]
# Name, form, shape, and length in bytes of each tensor, in the order in which they lie.
_PARTS = TypeAdapter(Annotated[list[_Part], Field(max_length=100_000)], config=ConfigDict(strict=True))

Made = MutableMapping[int, tuple[ArrayRecord, str]]


class PackingError(ValueError):
    """A packed content is not what :func:`pack` makes."""


def pack(content: RecordDict, made: Made | None = None) -> RecordDict:
    """The same content with each record's arrays as one.

    Args:
        content: A message's; left as it is.
        made: Remembers what became of each record, by its id, for further messages that hold the very same one.

    Returns:
        Content whose records are to be shared, not written to.
    """
    packed, index = RecordDict(), {}
    made = {} if made is None else made
    for name, record in content.items():
        if not isinstance(record, ArrayRecord):
            packed[name] = record
            continue
        if id(record) not in made:
            made[id(record)] = _pack(record)
        packed[name], index[name] = made[id(record)]
    if index:
        packed[_INDEX] = ConfigRecord(dict(index))
    return packed


def is_packed(content: RecordDict) -> bool:
    """Whether there is anything to :func:`unpack`; who answers does as was asked."""
    return isinstance(content.get(_INDEX), ConfigRecord)


def unpack(content: RecordDict) -> RecordDict:
    """Undo :func:`pack`, without a copy; a content that was not packed is returned as it is.

    Raises:
        PackingError: The index does not fit what was sent.
    """
    index = content.get(_INDEX)
    if not isinstance(index, ConfigRecord):
        return content
    unpacked = RecordDict()
    for name, record in content.items():
        if name != _INDEX:
            unpacked[name] = _unpack(name, record, index.get(name)) if isinstance(record, ArrayRecord) else record
    return unpacked


def _pack(record: ArrayRecord) -> tuple[ArrayRecord, str]:
    parts = [[name, array.dtype, list(array.shape), array.stype, len(array.data)] for name, array in record.items()]
    data = b"".join(array.data for array in record.values())
    return ArrayRecord({_ONE: Array("uint8", (len(data),), "zk0", data)}), json.dumps(parts, separators=(",", ":"))


def _unpack(name: str, record: ArrayRecord, index: object) -> ArrayRecord:
    unpacked, start = ArrayRecord(), 0
    try:
        view = memoryview(record[_ONE].data)
        parts = _PARTS.validate_json(str(index).encode())
    except (KeyError, ValueError) as error:
        told = fault(error) if isinstance(error, ValidationError) else repr(error)
        raise PackingError(f"'{name}' is packed in another way: {told}") from error
    for key, dtype, shape, stype, size in parts:
        end = start + size
        if not start <= end <= len(view):
            raise PackingError(f"'{name}' is packed in {len(view)} bytes, and '{key}' is said to end at {end}")
        array = Array(dtype, tuple(shape), stype, b"")
        array.data = view[start:end]  # type: ignore[assignment]  # any buffer of bytes will do
        unpacked[key] = array
        start = end
    if start != len(view):
        raise PackingError(f"'{name}' is packed in {len(view)} bytes, and its index speaks of {start}")
    return unpacked
