"""The socket between a site's ClientApp and its trainer: Flower's messages, one at a time, for one user alone.

A message is Flower's own protobuf after eight bytes that hold its length; nothing is pickled. The socket is a file
that only its owner may open, in a folder that only its owner may enter, and each end asks the kernel who the other is.
Each system is asked in its own way: Linux, and macOS.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import ArrayRecord, Message

from zk0.errors import StageError
from zk0.federation.flower import message_from_proto, message_pb2, message_to_proto

_FOLDER = Path(".run/trainer")
_LENGTH = struct.Struct(">Q")
_LIMIT_BYTES = (1 << 31) - 1  # protobuf's own
_PEER = struct.Struct("3i")  # process, user and group, as SO_PEERCRED tells them
# macOS: SOL_LOCAL and LOCAL_PEERCRED of sys/un.h, and of its struct xucred the version, which is 0, and the user.
_MAC_LEVEL, _MAC_OPTION, _MAC_PEER = 0, 1, struct.Struct("2I")
_MAC_ADDRESS_BYTES = 103
_BLOCK_BYTES = 1 << 20


class ChannelError(StageError):
    """The other end of the socket is not there, is somebody else, or broke off."""


def socket_path(project: Path, partition: int) -> Path:
    """Where the trainer of a partition listens."""
    return project / _FOLDER / f"{partition:04d}.sock"


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """A connection to the trainer that listens there.

    Raises:
        OSError: Nobody does.
        ChannelError: It is another user.
    """
    with _reachable(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        check_peer(connection)
        yield connection


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that takes connections, in place of one that nobody serves any more; gone at the end.

    Its folder must be there, and private.
    """
    with _reachable(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)  # the file is never open to others, not even until its mode is set
        try:
            listener.bind(address)
        finally:
            os.umask(before)
        listener.listen()
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for the path that is short enough for a socket's address, which holds 107 bytes."""
    if sys.platform != "linux":  # without such names
        if len(os.fsencode(path)) > _MAC_ADDRESS_BYTES:
            raise ChannelError(
                f"the path of the trainer's socket, {path}, has more than the {_MAC_ADDRESS_BYTES} bytes that this "
                "system takes; put the project into a folder with a shorter path"
            )
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def check_peer(connection: socket.socket) -> None:
    """Refuse another user at the other end.

    Raises:
        ChannelError: It is; names both.
    """
    if sys.platform == "darwin":
        _, user = _MAC_PEER.unpack(connection.getsockopt(_MAC_LEVEL, _MAC_OPTION, _MAC_PEER.size))
    else:
        _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if user != os.getuid():
        raise ChannelError(f"user {user} is at the other end of the trainer's socket, expected {os.getuid()}")


def send(connection: socket.socket, message: Message) -> int:
    """Send a message, and return its size in bytes.

    Raises:
        OSError: The other end is gone.
        ValueError: It is too large for protobuf.
    """
    if message.has_content():
        for record in message.content.values():
            for array in record.values() if isinstance(record, ArrayRecord) else ():
                array.data = bytes(array.data)  # a codec's may be a view, which protobuf does not take
    content = message_to_proto(message).SerializeToString()
    connection.sendall(_LENGTH.pack(len(content)))
    connection.sendall(content)
    return len(content)


def receive(connection: socket.socket) -> tuple[Message, int] | None:
    """Receive a message and its size in bytes; None where the other end closed without sending any.

    Raises:
        ChannelError: The other end broke off, or what it sent is no message.
        OSError: The connection failed or timed out.
    """
    head = _read(connection, _LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head) if len(head) == _LENGTH.size else (0,)
    if not 0 < length <= _LIMIT_BYTES:
        raise ChannelError(f"the other end announced a message of {length} bytes, expected 1 to {_LIMIT_BYTES}")
    content = _read(connection, length)
    if len(content) < length:
        raise ChannelError(f"the other end broke off after {len(content)} of a message's {length} bytes")
    try:
        return message_from_proto(message_pb2.Message.FromString(content)), length
    except Exception as error:  # protobuf and Flower raise what they will on bytes that are no message
        raise ChannelError(f"the other end sent {length} bytes that are no message: {error}") from error


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the other end closes before."""
    parts, left = [], size
    while left and (part := connection.recv(min(left, _BLOCK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
