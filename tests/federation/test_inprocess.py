"""The in-process engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from federated_sites import (
    LIMIT,
    app_of,
    ask,
)
from flwr.app import Context, Message, RecordDict

from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.protocol import ERROR_CODE


def test_each_node_serves_its_partition(prepared: Path) -> None:
    grid = InProcessGrid(client_app, prepared, 2, LIMIT)

    assert list(grid.get_node_ids()) == [1, 2]
    for node, name in ((1, "cubes-0"), (2, "cubes-1")):
        found, told = protocol.read(ask(grid, node, protocol.SUMMARY).content)
        assert told["manifest"]["site"] == name and "episode_digests" not in told["manifest"]
        assert found.partition == node - 1


def test_exception_becomes_an_error_reply(prepared: Path) -> None:
    grid = InProcessGrid(client_app, prepared, 3, LIMIT)

    reply = ask(grid, 3, protocol.SUMMARY)

    assert reply.has_error() and reply.error.code == ERROR_CODE
    assert reply.error.reason == "DataError: there is no partition 2: the manifests are of 0, 1"
    assert "WireError: the message's header is malformed" in ask(grid, 1, protocol.TRAIN).error.reason
    assert not ask(grid, 1, protocol.SUMMARY).has_error()


def test_messages_can_be_pushed_and_pulled(prepared: Path) -> None:
    grid = InProcessGrid(client_app, prepared, 2, LIMIT)
    content = RecordDict()
    protocol.write(content, protocol.Header(run="test", round=0, partition=0))
    messages = [grid.create_message(content, protocol.STATISTICS, node, "0") for node in (2, 1)]

    replies = list(grid.pull_messages(grid.push_messages(messages)))

    assert [reply.metadata.src_node_id for reply in replies] == [2, 1]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]


def test_replies_come_one_by_one(prepared: Path) -> None:
    """So a server folds one site's update before the next site makes its own."""
    served: list[int] = []

    def answer(message: Message, context: Context) -> Message:
        served.append(int(context.node_config["partition-id"]))
        return client_app(message, context)

    grid = InProcessGrid(app_of(answer), prepared, 2, LIMIT)
    content = RecordDict()
    protocol.write(content, protocol.Header(run="test", round=0, partition=0))
    replies = grid.send_and_receive([Message(content, node, protocol.SUMMARY, group_id="0") for node in (1, 2)])

    next(replies)
    assert served == [0]
    next(replies)
    assert served == [0, 1]


def test_a_site_with_a_real_arm_needs_no_simulator() -> None:
    code = "import sys, zk0.federation.client_app\nassert not {'mujoco', 'zk0.data.sim.simulation'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
