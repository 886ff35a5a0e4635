"""Asking a SuperLink which replies have come: a few requests for any number of messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from zk0.federation.flower import HttpGrid, message_pb2, runtime_pb2
from zk0.network.server.pulling import Pulling


class SuperLink:
    """Has a reply to every third message, one of them twice, and one to a message that nobody sent."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def PullMessages(self, request: Any) -> Any:  # noqa: N802 - Flower's
        self.asked.append(list(request.message_ids))
        response = runtime_pb2.PullAppMessagesResponse()
        for number in ["strange", *request.message_ids[::3], request.message_ids[0]]:
            response.messages_list.add().metadata.reply_to_message_id = number
            response.message_object_trees.append(message_pb2.ObjectTree(object_id=f"tree of {number}"))
        return response


def test_many_messages_are_asked_for_together_and_each_reply_is_told_once() -> None:
    superlink = SuperLink()
    pulling = Pulling(cast(HttpGrid, SimpleNamespace(_runtime_client=superlink)), lambda _: 0)
    numbers = [f"message-{place}" for place in range(600)]

    found = {number: tree.object_id for number, tree in pulling.come(numbers)}
    told = [number for number, _ in pulling.come(numbers[:1])]

    assert [len(some) for some in superlink.asked] == [256, 256, 88, 1]
    assert [number for some in superlink.asked[:3] for number in some] == numbers
    assert sorted(found) == sorted([*numbers[:256:3], *numbers[256:512:3], *numbers[512::3]])
    assert all(tree == f"tree of {number}" for number, tree in found.items())
    assert told == numbers[:1]
    assert list(pulling.come([])) == []
