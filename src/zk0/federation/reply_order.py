"""The sites' replies, in the order in which they are averaged."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict

from zk0.federation.wire import arrays_in


@dataclass(frozen=True)
class Reply:
    """A site's answer that passed all checks."""

    site: str
    partition: int
    values: dict[str, Any]
    content: RecordDict
    bytes_up: int
    bytes_down: int


def in_order(messages: Iterable[Message], nodes: Sequence[int], folder: Path) -> Iterator[Message]:
    """One reply per node, in the nodes' order: who comes early waits, on disk.

    Floating-point sums depend on the order, and so results would on who is fastest. Repeated and
    unasked-for replies are dropped.

    Args:
        messages: As they arrive.
        nodes: The order.
        folder: Where early ones wait, so that memory holds one reply at a time.
    """
    places, heard = set(nodes), set[int]()
    waiting: dict[int, Message] = {}
    turn = 0
    for message in messages:
        node = message.metadata.src_node_id
        if node in heard or node not in places:
            continue
        heard.add(node)
        if node != nodes[turn] and not message.has_error():
            set_aside(message, folder)
        waiting[node] = message
        del message  # or this loop would hold the update while the next site makes its own
        while turn < len(nodes) and nodes[turn] in waiting:
            yield waiting.pop(nodes[turn])
            turn += 1
    yield from (waiting.pop(node) for node in nodes[turn:] if node in waiting)


def set_aside(message: Message, folder: Path) -> None:
    """Move a waiting reply's arrays from memory to a file that vanishes with it.

    Raises:
        OSError: There is no room for it.
    """
    arrays = arrays_in(message.content)
    size = sum(len(array.data) for array in arrays)
    if not size:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as stream:
        for array in arrays:
            stream.write(array.data)
        stream.flush()
        view = memoryview(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ))
    start = 0
    for array in arrays:
        end = start + len(array.data)
        array.data = view[start:end]  # type: ignore[assignment]  # any buffer of bytes will do
        start = end
