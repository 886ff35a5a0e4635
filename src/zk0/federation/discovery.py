"""Who takes part in a run: the sites' manifests, asked for before anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flwr.app import Message, RecordDict

from zk0.federation import answers, protocol
from zk0.federation.server import Server

# What finds the sites of a run, has the server serve them, and gives their manifests in partition order.
Meet = Callable[[Server], list[dict[str, Any]]]


def meet(server: Server) -> list[dict[str, Any]]:
    """Serve every node of the Grid as the partition of its place there: all sites are in this process.

    A node whose summary is refused is left out, as it would be of a round.

    Raises:
        FederationError: Too few nodes tell what data they have; names those that do not, and why.
    """
    places = {node: place for place, node in enumerate(server.grid.get_node_ids())}
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for node, answer in ask_summaries(server, places, {node: f"node {node}" for node in places}):
        place = places[node]
        if isinstance(answer, dict) and answer["partition"] != place:
            answer = answers.ReplyError(f"its manifest is of partition {answer['partition']}, expected {place}")
        if isinstance(answer, answers.ReplyError):
            server.leave_out(f"node {node}", 0, f"it has no data to train on: {answer}")
        else:
            found[place] = (node, answer)
    server.enough(len(found), 0, "told what data they have", len(places))
    return server.serve(found)


def ask_summaries(
    server: Server,
    partitions: Mapping[int, int],
    names: Mapping[int, str],
    known: Callable[[int], dict[str, Any]] = lambda node: {},
    timeout_s: float | None = None,
) -> Iterator[tuple[int, dict[str, Any] | answers.ReplyError]]:
    """Ask nodes for their manifests, and yield each node's, or why it has none.

    Args:
        server: Speaks to them.
        partitions: From node to the partition by which to address it.
        names: From node to what to call it.
        known: What is known better of a node's manifest than by its own word.
        timeout_s: How long to wait; who has not answered by then is left out. None waits for all.
    """
    messages, awaited = [], {}
    for node, partition in partitions.items():
        content = RecordDict()
        awaited[node] = protocol.Header(run=server.run, round=0, partition=partition)
        protocol.write(content, awaited[node])
        messages.append(Message(content, node, protocol.SUMMARY, group_id="0"))
    for message in server.grid.send_and_receive(messages, timeout=timeout_s):
        node = message.metadata.src_node_id
        if node not in awaited:
            continue
        try:
            values = answers.parse(message, protocol.SUMMARY, awaited.pop(node), names[node], {})
            yield node, answers.manifest_in(values, **known(node))
        except answers.ReplyError as error:
            yield node, error
