"""A Grid whose sites' replies are made one at a time, so that the memory a process needs is the server's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class StandInGrid(Grid):
    """Nodes 1 to N; ``answer`` makes the content of the reply to a message when the reply is asked for.

    Args:
        sites: N.
        answer: Content of the reply to a message.
    """

    def __init__(self, sites: int, answer: Callable[[Message], RecordDict]) -> None:
        self._sites, self._answer = sites, answer
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0

    @property
    def run(self) -> Any:
        """None: there is no run record."""
        return None

    def set_run(self, run: Any) -> None:
        """Nothing to set."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(range(1, self._sites + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not in use: both servers measured here send and receive."""
        raise NotImplementedError("this grid only sends and receives")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not in use, as above."""
        raise NotImplementedError("this grid only sends and receives")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Make and yield one reply after the other, in the messages' order, keeping none."""
        for message in messages:
            yield Message(self._answer(message), reply_to=message)
