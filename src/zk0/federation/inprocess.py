"""The in-process engine: a Flower Grid that calls the ClientApp directly, in a fixed order.

Flower's own Grid is an interface of six methods; only what a ServerApp needs is in use here. It
touches one of Flower's internals, ``TaskIdentity``, which is why flwr is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from zk0.federation.flower import TaskIdentity
from zk0.federation.protocol import error_reply

RUN_ID = 1


class NodesGrid(Grid):
    """Nodes 1 to N that this process reaches by itself; how is for :meth:`send_and_receive` to say.

    Args:
        nodes: N.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        # In a SuperLink's processes Flower sets who speaks; here this process is run, server and sites.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 0
        self._pending: dict[str, Message] = {}

    @property
    def run(self) -> Any:
        """There is no run record in process."""
        return None

    def set_run(self, run: Any) -> None:
        """Nothing to set: the one run is this process."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node, as Flower makes it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, in partition order."""
        return list(range(1, self._nodes + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        keys = []
        for message in messages:
            key = f"m{len(self._pending)}"
            self._pending[key] = message
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Make the replies to what was pushed."""
        return list(self.send_and_receive([self._pending.pop(key) for key in message_ids]))


class LocalGrid(NodesGrid):
    """Nodes in this process, whose replies are made one at a time, in the messages' order.

    Replies are yielded one by one, so a caller can fold each before the next is made, and only one
    update is in memory.

    Args:
        nodes: How many.
        answer: Makes the reply to a message.
    """

    def __init__(self, nodes: int, answer: Callable[[Message], Message]) -> None:
        super().__init__(nodes)
        self._answer = answer

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002 - Flower's signature; a reply is made at once
    ) -> Iterator[Message]:
        """Make and yield one reply after the other, keeping none."""
        for message in messages:
            yield self._answer(message)


class InProcessGrid(LocalGrid):
    """One node per partition, all served by one ClientApp.

    A site's exception becomes an error reply, as on a real network.

    Args:
        client_app: Serves the nodes.
        project: Their folder.
        partitions: How many they are.
        decoded_limit_bytes, processes: As in params.
    """

    def __init__(
        self, client_app: ClientApp, project: Path, partitions: int, decoded_limit_bytes: int, processes: int = 1
    ) -> None:
        super().__init__(partitions, self._serve)
        self._app = client_app
        self._contexts = {
            node: Context(
                run_id=RUN_ID,
                node_id=node,
                node_config={
                    "partition-id": node - 1,
                    "num-partitions": partitions,
                    "project": str(project),
                    "decoded-limit-bytes": decoded_limit_bytes,
                    "processes": processes,
                },
                state=RecordDict(),
                run_config={},
            )
            for node in self.get_node_ids()
        }

    def config(self, node: int) -> UserConfig:
        """A node's config."""
        return self._contexts[node].node_config

    def _serve(self, message: Message) -> Message:
        try:
            return self._app(message=message, context=self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # whatever goes wrong at a site must not end the server
            return error_reply(message, error)
