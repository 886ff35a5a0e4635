"""Updates that wait on disk: for their turn, or until all are there for strategies that cannot stream."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import torch
from flwr.app import Message

from zk0.errors import StageError
from zk0.federation.codecs.base import as_bytes
from zk0.federation.wire import arrays_in
from zk0.policy.trainable import PIECE, Tensors

_VALUE = torch.float32.itemsize


class Spill:
    """A file without a name that holds updates one after the other, in float32.

    Whatever ends the process, kill included, the file and its space are gone with it. It is read by
    plain reads into one buffer: pages of a memory map would count as this process's memory.

    Use as a context.
    """

    def __init__(self, start: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Keep updates of these tensors on the file system of ``folder``, which is made if need be."""
        self._shapes = {name: tensor.shape for name, tensor in start.items()}
        self._bytes = sum(tensor.numel() for tensor in start.values()) * _VALUE
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed by __exit__
        self.count = 0

    def append(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Write an update to disk.

        Raises:
            StageError: The disk is full; says how much is free and needed. The update was not taken.
        """
        if (free := shutil.disk_usage(self._folder).free) < self._bytes:
            raise self._full(free)
        offset = self.count * self._bytes
        try:
            for name in self._shapes:
                content = as_bytes(delta[name].to(torch.float32))
                _write(self._file, content, offset)
                offset += len(content)
        except OSError as error:
            raise self._full(shutil.disk_usage(self._folder).free) from error
        self.count += 1

    def _full(self, free: int) -> StageError:
        return StageError(
            f"update {self.count + 1} of this round needs {self._bytes / 1e9:.2f} GB on disk, but {self._folder} has "
            f"{free / 1e9:.2f} GB free; make room there, or use a strategy that streams, such as fedavg"
        )

    def rows(self, result: Tensors) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Go through all values once, in pieces, of all updates together.

        Args:
            result: Float32 tensors like the updates'.

        Yields:
            A (updates, values) buffer, valid until the next, and where in ``result`` these values are.
        """
        width = max(1024, PIECE // max(1, self.count))
        buffer = torch.empty(self.count, width)
        offset = 0
        for name in self._shapes:
            for piece in torch.split(result[name].view(-1), width):
                rows = buffer[:, : piece.numel()]
                for index, row in enumerate(rows):
                    self._read(row, index * self._bytes + offset)
                offset += piece.numel() * _VALUE
                yield rows, piece

    def one(self, index: int) -> Tensors:
        """Read one update back, in float32."""
        result, offset = self.empty(), index * self._bytes
        for tensor in result.values():
            self._read(tensor.view(-1), offset)
            offset += tensor.numel() * _VALUE
        return result

    def empty(self) -> Tensors:
        """Float32 tensors like the updates', not filled."""
        return {name: torch.empty(shape) for name, shape in self._shapes.items()}

    def _read(self, to: torch.Tensor, offset: int) -> None:
        _read(self._file, as_bytes(to), offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
    with Aside(folder) as aside:
        for message in messages:
            node = message.metadata.src_node_id
            if node in heard or node not in places:
                continue
            heard.add(node)
            if node != nodes[turn] and not message.has_error():
                aside.put(message)
            waiting[node] = message
            del message  # or this loop would hold the update while the next site makes its own
            while turn < len(nodes) and nodes[turn] in waiting:
                yield aside.take(waiting.pop(nodes[turn]))
                turn += 1
        yield from (aside.take(waiting.pop(node)) for node in nodes[turn:] if node in waiting)


class Aside:
    """Waiting replies' arrays, out of memory: in one file without a name, so no number of them runs out of files.

    A place that is free again is taken by the next reply of that size.

    Args:
        folder: Where the file is, once there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[int, tuple[int, list[int]]] = {}
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def put(self, message: Message) -> None:
        """Move a reply's arrays to the file.

        Raises:
            OSError: There is no room for them.
        """
        arrays = arrays_in(message.content)
        if not (size := sum(len(array.data) for array in arrays)):
            return
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # closed by __exit__
        start = at = self._free[size].pop() if self._free[size] else self._end
        for array in arrays:
            _write(self._file, memoryview(array.data), at)
            at += len(array.data)
        self._places[id(message)] = start, [len(array.data) for array in arrays]
        self._end = max(self._end, at)
        for array in arrays:
            array.data = b""

    def take(self, message: Message) -> Message:
        """The same reply with its arrays, if they were put aside."""
        if self._file is None or id(message) not in self._places:
            return message
        start, sizes = self._places.pop(id(message))
        view = memoryview(bytearray(sum(sizes)))
        _read(self._file, view, start)
        self._free[len(view)].append(start)
        for array, size in zip(arrays_in(message.content), sizes, strict=True):
            array.data, view = view[:size], view[size:]  # type: ignore[assignment]  # any buffer of bytes will do
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _write(file: IO[bytes], content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written


def _read(file: IO[bytes], to: memoryview, offset: int) -> None:
    while to:
        if not (read := os.preadv(file.fileno(), [to], offset)):
            raise OSError(f"the updates waiting on disk were cut short at byte {offset}")
        to, offset = to[read:], offset + read
