"""A Grid over a network: replies are yielded as they arrive, and every site is who the registry says it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from zk0.errors import StageError
from zk0.federation.flower import HttpGrid
from zk0.network.packing import Made, pack
from zk0.network.security.files import SUPERLINK
from zk0.network.server.pulling import Pulling, refusal
from zk0.network.server.services import FederationServer, present_nodes
from zk0.network.server.wanted import INTERRUPTED

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_EVERY_S = 3.0  # how often it is looked whether what carries messages died
_OF_SERVER = (SUPERLINK, "gateway")
_BEGAN_ANEW = "its node is away: it began anew, and what it was asked is lost"
_NOT_ADMITTED = "it is not admitted any more"


def watched(server: FederationServer) -> Callable[[int], bool]:
    """Watch what carries a run's messages from now on: SuperLink and gateway, and the sites' nodes.

    Flower sends no message twice. A node asks for one, and the SuperLink counts it as delivered with its answer,
    wherever that ends. So what was under way when a gateway or a SuperLink died may be lost, and what a node had when
    it died is.

    Returns:
        Whether a node began anew since then. Raises a StageError where SuperLink or gateway did: the run is taken
        up again from its last complete round.
    """

    def processes() -> dict[str, int]:
        running = server.services.running()
        return {name: running[name].pid for name in _OF_SERVER if name in running}

    def activations(last: dict[int, str]) -> dict[int, str]:
        """When each node was let in; as it was known last where the SuperLink is away."""
        try:
            return present_nodes(server)
        except StageError:
            return last

    carriers, nodes = processes(), activations({})
    asked, found = time.monotonic(), dict(nodes)

    def lost(node: int) -> bool:
        nonlocal asked, found
        if time.monotonic() - asked > _EVERY_S:
            asked = time.monotonic()
            for name, pid in processes().items():
                if carriers.setdefault(name, pid) != pid:
                    raise StageError(f"{INTERRUPTED}the {name} was started anew while messages were on their way")
            found = activations(found)
        return node in nodes and node in found and nodes[node] != found[node]

    return lost


class NetworkGrid(Grid):
    """Flower's Grid of a SuperLink, pulled in a loop.

    Replies are taken one at a time, so the server's memory holds one, however many sites there are.

    Args:
        grid: Flower's.
        nodes: The federation's, in partition order, whether they are there or not.
        admitted: Whether a node's site is admitted at this moment.
        payload_bytes: How many bytes of tensors the reply to a message of a kind may carry; a longer one is not taken.
        server: Whose services may lose a message; None where nobody looks.
    """

    def __init__(
        self,
        grid: HttpGrid,
        nodes: Sequence[int],
        admitted: Callable[[int], bool],
        payload_bytes: Callable[[str], int] = lambda _: 0,
        server: FederationServer | None = None,
    ) -> None:
        self._grid, self._nodes, self._admitted, self._server = grid, list(nodes), admitted, server
        self._pulling = Pulling(grid, payload_bytes)

    @property
    def run(self) -> Any:
        """Flower's record of the run."""
        return self._grid.run

    def set_run(self, run: Any) -> None:
        """Take the record of the run, which Flower sets."""
        self._grid.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node, to be pushed."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The federation's nodes, in partition order."""
        return list(self._nodes)

    def present(self) -> set[int]:
        """Those nodes that the SuperLink has heard of lately."""
        return set(self._grid.get_node_ids()) & set(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, packed; a number that is empty belongs to one that the SuperLink did not take."""
        made: Made = {}
        packed = list(messages)
        for message in packed:
            message.content = pack(message.content, made)
        return self._grid.push_messages(packed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there by now, as Flower has them."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send all messages, then yield each reply as it arrives; end when none is to come, or in time.

        For a node that is away the SuperLink answers with an error. After the timeout a message is of no use to
        anybody, so none is kept for a node that comes back later.
        """
        lost = watched(self._server) if self._server else lambda _: False
        asked = []
        for message in messages:
            if not self._admitted(message.metadata.dst_node_id):
                yield refusal(message, _NOT_ADMITTED)
                continue
            if timeout is not None:
                message.metadata.ttl = timeout
            asked.append(message)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        waiting: dict[str, Message] = {}
        for message, number in zip(asked, self.push_messages(asked) if asked else [], strict=True):
            message.content = RecordDict()  # its tensors are sent, and need no memory while the sites train
            if number:
                waiting[number] = message
            else:
                yield refusal(message, "the SuperLink does not know its node; `zk0 site sync` tells it")
        del asked
        pause = _SHORTEST_PAUSE_S
        while waiting:
            late = time.monotonic() >= deadline  # asked first: what came in time is then taken all the same
            arrived = False
            for number, tree in self._pulling.come(list(waiting)):
                arrived, message = True, waiting.pop(number)
                reply = self._pulling.reply(tree, message, deadline)
                if not self._admitted(message.metadata.dst_node_id):
                    reply = refusal(message, _NOT_ADMITTED)
                yield reply
                del reply  # or its update would stay in memory while the next site makes its own
            if late:
                return
            for number in [number for number, message in waiting.items() if lost(message.metadata.dst_node_id)]:
                yield refusal(waiting.pop(number), _BEGAN_ANEW)
            pause = _SHORTEST_PAUSE_S if arrived else min(pause * 1.2, _LONGEST_PAUSE_S)
            if waiting:
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
