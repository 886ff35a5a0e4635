"""Taking one reply from a SuperLink, part by part, without trust in its sender's speed, size or form.

A reply is a tree of parts. An array names its chunks by their content, one chunk as often as it likes, so a few
megabytes that arrive may be gigabytes once joined: what the parts add up to is counted before any are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import batched
from typing import Any

from flwr.app import Error, Message, RecordDict
from pydantic_core import from_json

from zk0.federation.flower import (
    HEAD_BODY_DIVIDER,
    ErrorCode,
    HttpGrid,
    inflatable_object,
    inflatable_utils,
    message_pb2,
    runtime_client,
    runtime_pb2,
)
from zk0.federation.protocol import ERROR_CODE, GRID_CODE, LONGEST_HEADER
from zk0.network.packing import PackingError, unpack

# A sender that is cut off is waited for so long; the slowest line that is borne brings 5 MiB in that time.
STALL_S = 120.0
_AT_ONCE = 256  # messages asked for; replies themselves are taken one by one
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
# All of a reply that is no tensor: header, index, names.
_TOLD_BYTES = 2 * LONGEST_HEADER
# Flower's chunks are of 5 MiB, and what is packed is a dozen parts besides.
_FEWEST_PARTS, _PART_BYTES = 100, 1 << 20

_MEANINGS = {
    ErrorCode.NODE_UNAVAILABLE: "its node is away",
    ErrorCode.MESSAGE_UNAVAILABLE: "no reply in time",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its reply came too late",
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its ClientApp cannot be loaded; is the same zk0 installed there?",
    ErrorCode.CLIENT_APP_CRASHED: "its ClientApp crashed; its node's log tells more",
}


class Refused(ValueError):
    """A reply is not taken; says why."""


class Pulling:
    """Pulls replies through Flower's Grid, one at a time.

    Flower itself would wait 83 minutes for the rest of a reply whose sender was cut off, wait a second at least
    for one whose sender is not quite done, take a reply of any length into memory and join it to one of any other,
    and end the server's process over one that is malformed.

    Args:
        grid: Flower's.
        payload_bytes: How many bytes of tensors the reply to a message of a kind may carry.
    """

    def __init__(self, grid: HttpGrid, payload_bytes: Callable[[str], int]) -> None:
        self._grid, self._payload_bytes = grid, payload_bytes

    def come(self, numbers: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Which messages have a reply by now, and the names of its parts; each is told once.

        To ask for each by itself would take the SuperLink longer the more there are, and the longer it takes the more
        often it would be asked.

        Args:
            numbers: The messages', as the SuperLink knows them.
        """
        for some in batched(numbers, _AT_ONCE):
            found = runtime_client(self._grid).PullMessages(runtime_pb2.PullAppMessagesRequest(message_ids=some))
            awaited = set(some)
            for told, tree in zip(found.messages_list, found.message_object_trees, strict=True):
                if (number := told.metadata.reply_to_message_id) in awaited:
                    awaited.remove(number)
                    yield number, tree

    def reply(self, tree: Any, asked: Message, deadline: float) -> Message:
        """A reply that has come; an error reply where it is not to be had.

        What a reply says of itself is not believed: it counts as the answer of the node that was asked, which is
        what gateway and SuperLink have checked.

        Args:
            tree: The names of its parts.
            asked: The message.
            deadline: Of ``time.monotonic()``; later, what has not arrived is given up.
        """
        client, run = runtime_client(self._grid), self._grid.run.run_id
        most = self._payload_bytes(asked.metadata.message_type)
        try:
            parts = self._parts(
                [part.object_id for part in inflatable_object.iterate_object_tree(tree)], most, deadline
            )
            told = joined(tree.object_id, parts, most)
            if not told.has_error():
                return Message(unpack(told.content), reply_to=asked)
        except (Refused, PackingError) as error:
            return refusal(asked, str(error))
        finally:  # taken or not, the SuperLink need not keep it
            node = self._grid.node
            client.ConfirmMessageReceived(
                message_pb2.ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=tree.object_id)
            )
        if told.error.code in _MEANINGS:
            return refusal(asked, _MEANINGS[told.error.code])
        return Message(Error(ERROR_CODE, told.error.reason), reply_to=asked)

    def _parts(self, numbers: list[str], most: int, deadline: float) -> dict[str, bytes]:
        """All parts of a reply, each once, by their numbers.

        Raises:
            Refused: They are too many or too long, or their sender was cut off.
        """
        limit, once = most + _TOLD_BYTES, list(dict.fromkeys(numbers))
        if len(once) > (parts := _FEWEST_PARTS + most // _PART_BYTES):
            raise Refused(f"its reply is of {len(once)} parts; at most {parts} were expected")
        taken, moved, lock = 0, time.monotonic(), threading.Lock()
        run, node = self._grid.run.run_id, self._grid.node

        def part(number: str) -> bytes:
            nonlocal taken, moved
            pause = _SHORTEST_PAUSE_S
            while True:
                answer = runtime_client(self._grid).PullObject(
                    message_pb2.PullObjectRequest(node=node, run_id=run, object_id=number)
                )
                now = time.monotonic()
                if answer.object_available:
                    with lock:
                        taken, moved = taken + len(answer.object_content), now
                    if taken > limit:
                        raise Refused(f"its reply is longer than {limit} bytes")
                    return bytes(answer.object_content)
                if not answer.object_found or now > deadline or now - moved > STALL_S:
                    raise Refused("it was cut off while it sent its reply")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

        return inflatable_utils.pull_objects(once, part)


def joined(number: str, parts: dict[str, bytes], most: int) -> Message:
    """The message that parts are of, which are given up on the way.

    Args:
        number: The message's own.
        parts: By number.
        most: How many bytes of tensors it may carry.

    Raises:
        Refused: They would be too long when joined, or are no message.
    """
    try:
        if (size := _joined_bytes(parts)) > most:
            raise Refused(f"its reply would be {size} bytes of tensors; at most {most} were expected")
        message = inflatable_utils.inflate_object_from_contents(number, parts)
    except Refused:
        raise
    except Exception as error:  # Flower's readers were not written for whoever means harm: they raise anything
        raise Refused(f"what it sent is malformed: {type(error).__name__}: {error}") from error
    if not isinstance(message, Message) or not (message.has_error() or isinstance(message.content, RecordDict)):
        raise Refused("what it sent is no message")
    return message


def _joined_bytes(parts: Mapping[str, bytes]) -> int:
    """How many bytes of tensors there will be once every array's chunks are joined."""
    bodies = {number: len(part) - part.index(HEAD_BODY_DIVIDER) - 1 for number, part in parts.items()}
    size = told = 0
    for number, part in parts.items():
        kind, children, _ = inflatable_object.get_object_head_values_from_object_content(part)
        if kind == "ArrayChunk":
            continue
        told += len(part)
        if kind == "Array":
            places = from_json(part[len(part) - bodies[number] :])["arraychunk_ids"]
            if any(type(place) is not int or not 0 <= place < len(children) for place in places):
                raise Refused("what it sent is malformed: an array names a chunk that is not its own")
            size += sum(bodies[children[place]] for place in places)
    if told > _TOLD_BYTES:
        raise Refused(f"its reply tells {told} bytes besides tensors; at most {_TOLD_BYTES} were expected")
    return size


def refusal(asked: Message, why: str) -> Message:
    """An error reply in a node's stead."""
    return Message(Error(GRID_CODE, why), reply_to=asked)
