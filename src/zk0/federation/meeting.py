"""Who takes part in a run: the sites' manifests, asked for before anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flwr.app import Message, RecordDict

from zk0.federation import protocol
from zk0.federation.server import FederationError, Server

# What finds the sites of a run, has the server serve them, and gives their manifests in partition order.
Meet = Callable[[Server], list[dict[str, Any]]]


def meet(server: Server) -> list[dict[str, Any]]:
    """Serve every node of the Grid, as the partition that it says it is: all sites are in this process.

    Raises:
        FederationError: A node has no data, or two serve one partition.
    """
    nodes = list(server.grid.get_node_ids())
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for node, answer in ask_summaries(server, dict.fromkeys(nodes, 0)):
        if isinstance(answer, str):
            raise FederationError(f"node {node} has no data to train on: {answer}")
        found[int(answer["partition"])] = (node, answer)
    if sorted(found) != list(range(len(nodes))):
        raise FederationError(
            f"{len(nodes)} nodes serve partitions {', '.join(map(str, sorted(found)))}; expected one node for "
            f"each of 0 to {len(nodes) - 1}"
        )
    return server.serve(found)


def ask_summaries(
    server: Server, partitions: Mapping[int, int], timeout_s: float | None = None
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Ask nodes for their manifests, and yield each node's, or why it has none.

    Args:
        server: Speaks to them.
        partitions: From node to the partition by which to address it.
        timeout_s: How long to wait; who has not answered by then is left out. None waits for all.
    """
    messages = []
    for node, partition in partitions.items():
        content = RecordDict()
        protocol.write(content, protocol.Header(run=server.run, round=0, partition=partition))
        messages.append(Message(content, node, protocol.SUMMARY, group_id="0"))
    awaited = set(partitions)
    for message in server.grid.send_and_receive(messages, timeout=timeout_s):
        node = message.metadata.src_node_id
        if node not in awaited:
            continue
        awaited.remove(node)
        if message.has_error():
            yield node, str(message.error.reason)
            continue
        try:
            yield node, dict(protocol.read(message.content)[1]["manifest"])
        except (ValueError, KeyError, TypeError) as error:
            yield node, f"its summary is malformed: {error!r}"
