"""Taking one reply from a SuperLink, part by part, without trust in its sender's speed, size or form."""

from __future__ import annotations

import time
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.superlink.grid import HttpGrid

from zk0.deployment.packing import unpack

REFUSED = 101
# A sender that is cut off is waited for so long; the slowest line that is borne brings 5 MiB in that time.
STALL_S = 120.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0

_MEANINGS = {
    ErrorCode.NODE_UNAVAILABLE: "its node is away",
    ErrorCode.MESSAGE_UNAVAILABLE: "no reply in time",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its reply came too late",
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its ClientApp cannot be loaded; is the same zk0 installed there?",
    ErrorCode.CLIENT_APP_CRASHED: "its ClientApp crashed; its node's log tells more",
}


class Pulling:
    """Pulls replies through Flower's Grid, one at a time.

    Flower itself would wait 83 minutes for the rest of a reply whose sender was cut off, wait a second at least
    for one whose sender is not quite done, take a reply of any length into memory, and end the server's process
    over one that is malformed.

    Args:
        grid: Flower's; the pulling of a message's parts is taken over.
        limit_bytes: A longer reply is given up.
    """

    def __init__(self, grid: HttpGrid, limit_bytes: int) -> None:
        self._grid, self._limit = grid, limit_bytes
        client = grid._runtime_client
        self._part = client.PullObject
        client.PullObject = self._pull_part  # type: ignore[method-assign]
        self._bytes, self._moved, self._deadline, self._why = 0, 0.0, 0.0, ""

    def reply(self, number: str, asked: Message, deadline: float) -> Message | None:
        """The reply to a message, if it has come; an error reply where there is none to be had.

        What a reply says of itself is not believed: it counts as the answer of the node that was asked, which is
        what gateway and SuperLink have checked.

        Args:
            number: The message's, as the SuperLink knows it.
            asked: The message.
            deadline: Of ``time.monotonic()``; later, what has not arrived is given up.
        """
        self._bytes, self._moved, self._deadline, self._why = 0, time.monotonic(), deadline, ""
        try:
            found = list(self._grid.pull_messages([number]))
            if not found:
                return None
            if not found[0].has_error():
                return Message(unpack(found[0].content), reply_to=asked)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            return refusal(asked, f"what it sent is malformed: {error}")
        told = found[0].error
        why = self._why or _MEANINGS.get(told.code) or told.reason or "it gave no reason"
        return Message(Error(told.code, why), reply_to=asked)

    def _pull_part(self, request: Any) -> Any:
        """In place of the client's own, of several threads."""
        pause = _SHORTEST_PAUSE_S
        while True:
            answer = self._part(request)
            if not answer.object_found:
                return answer
            now = time.monotonic()
            if answer.object_available:
                self._bytes, self._moved = self._bytes + len(answer.object_content), now
                if self._bytes > self._limit:
                    raise self._give_up(request, f"its reply is longer than {self._limit} bytes")
                return answer
            if now > self._deadline or now - self._moved > STALL_S:
                raise self._give_up(request, "it was cut off while it sent its reply")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _give_up(self, request: Any, why: str) -> ObjectPullError:
        self._why = why
        return ObjectPullError(request.object_id, why)


def refusal(asked: Message, why: str) -> Message:
    """An error reply in a node's stead."""
    return Message(Error(REFUSED, why), reply_to=asked)
