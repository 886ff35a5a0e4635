"""The trainer and the ClientApp that asks it, over their real socket."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from network_services import Service, wait_until
from site_trainers import lay_out_site, message, node, site_task, trainer, with_model
from tests_support import REPO

from zk0.errors import StageError
from zk0.federation import protocol, wire
from zk0.federation.client_app import app as client_app
from zk0.federation.site import forget, open_site
from zk0.federation.start import locked_base
from zk0.federation.statistics import Moments, merge_all, moments_of
from zk0.files import read_json, write_json
from zk0.network.client import channel
from zk0.network.client.app import app as site_app
from zk0.network.client.trainer import Trainer
from zk0.params import Params, parse_params
from zk0.policy.checkpoint import Stats, load_checkpoint, save_checkpoint
from zk0.policy.trainable import Tensors, digest_tensors
from zk0.records.files import read_lines
from zk0.sources_lock import resolve_policy

pytestmark = pytest.mark.services
LIMIT = 10**9


@pytest.fixture
def site(sites_home: Path) -> Path:
    return sites_home


@pytest.fixture
def running(trainers: list[Service]) -> Service:
    """Partition 1's trainer."""
    return trainers[1]


@pytest.fixture(scope="module")
def stats(prepared: Path) -> Stats:
    return merge_all([moments_of(open_site(prepared, part, LIMIT).train_frames) for part in (0, 1)]).normalisation()


def test_it_answers_as_the_client_app_does(
    running: Service, site: Path, small_params: Params, start: Tensors, stats: Stats
) -> None:
    task = site_task(small_params, locked_base(site), partition=1)
    asked = with_model(task, protocol.TRAIN, start, stats)
    warm = site_app(asked, node(site, 1))
    here = node(site, 1)
    here.node_config["decoded-limit-bytes"] = LIMIT
    cold = client_app(with_model(task, protocol.TRAIN, start, stats), here)
    assert warm.metadata.reply_to_message_id == asked.metadata.message_id
    assert warm.metadata.src_node_id == asked.metadata.dst_node_id
    updates = [digest_tensors(wire.unpack(reply.content, protocol.DELTA)) for reply in (warm, cold)]
    assert updates[0] == updates[1]
    judged = site_app(with_model(task, protocol.EVALUATE, start, stats), node(site, 1))
    assert protocol.read(judged.content)[1]["held_out_loss"] > 0
    said = [event for event in read_lines(site / "results/site/events.jsonl") if event["event"] == protocol.TRAIN]
    assert said[-1]["round"] == 1 and said[-1]["run"] == "test" and said[-1]["train_loss"] > 0
    assert said[-1]["bytes_up"] == wire.payload_bytes(warm.content)


def test_queries_pass(running: Service, site: Path) -> None:
    header = protocol.Header(run="", round=0, partition=0)  # who asks does not know yet who answers
    summary = site_app(message(protocol.SUMMARY, header, 1), node(site, 1))
    assert protocol.read(summary.content)[1]["manifest"]["site"] == "cubes-1"
    header = protocol.Header(run="test", round=0, partition=1)
    moments = site_app(message(protocol.STATISTICS, header, 1), node(site, 1))
    found = Moments.from_tensors(wire.unpack(moments.content, protocol.MOMENTS))
    assert merge_all([found]).normalisation()["action"]["std"].min() > 0


def test_a_message_for_another_partition_is_refused(running: Service, site: Path, small_params: Params) -> None:
    for asked in (
        message(protocol.TRAIN, site_task(small_params, locked_base(site), partition=0)),
        message(protocol.STATISTICS, protocol.Header(run="test", round=0, partition=0)),
    ):
        reply = site_app(asked, node(site, 1))
        assert reply.error.reason == "ValueError: the message is for partition 0, and this site is partition 1"


def test_another_starting_policy_is_refused(
    running: Service, site: Path, small_params: Params, start: Tensors, stats: Stats
) -> None:
    task = site_task(small_params, ("models/elsewhere", "0123456789abcdef"), partition=1)
    reason = site_app(with_model(task, protocol.TRAIN, start, stats), node(site, 1)).error.reason
    assert reason.startswith(
        "BaseMissing: the federation starts from models/elsewhere of digest 0123456789ab, which this site does not "
        "have: random:nano is "
    )
    assert "here, models/elsewhere is not here. The operator can send it" in reason


def test_a_path_that_means_nothing_here_is_found_by_its_digest(
    running: Service, site: Path, small_params: Params, start: Tensors, stats: Stats
) -> None:
    task = site_task(small_params, ("/of/the/server", locked_base(site)[1]), partition=1)
    assert site_app(with_model(task, protocol.EVALUATE, start, stats), node(site, 1)).has_content()


def test_a_starting_policy_that_was_replaced_is_loaded_anew(
    prepared: Path, params_content: dict[str, Any], tmp_path: Path, start: Tensors, stats: Stats
) -> None:
    """In the same folder, while the trainer runs: it may not go on with what it has in memory."""
    site, base = tmp_path / "site", tmp_path / "site/base"
    shutil.copytree(REPO / "models/nano-base", base)
    params = parse_params({**params_content, "policy": {**params_content["policy"], "base": "base"}})
    lay_out_site(prepared, site, params.model_dump(mode="json"))
    lock = read_json(site / "sources.lock.json")

    def lost(running: Trainer) -> float:
        task = site_task(params, locked_base(site), partition=1)
        reply = running.answer(with_model(task, protocol.EVALUATE, start, stats))
        return float(protocol.read(reply.content)[1]["held_out_loss"])

    def lock_base() -> None:
        write_json(site / "sources.lock.json", {**lock, "policy": resolve_policy(params, site, lock["policy"])})

    lock_base()
    running = Trainer(site, params, 1)
    before = lost(running)
    loaded = load_checkpoint(base, "cpu")
    with torch.no_grad():
        for tensor in loaded.policy.parameters():
            if not tensor.requires_grad:
                tensor.mul_(1.1)
    save_checkpoint(loaded, base)
    lock_base()

    after = lost(running)
    forget()
    assert after == lost(Trainer(site, params, 1)) != before


def test_what_the_site_cannot_do_is_an_error_reply(running: Service, site: Path) -> None:
    broken = message(protocol.TRAIN, protocol.Header(run="test", round=1, partition=1))
    reason = site_app(broken, node(site, 1)).error.reason
    assert reason.startswith("WireError: the message's header is malformed")


def test_nobody_else_may_open_the_socket(running: Service, site: Path) -> None:
    path = channel.socket_path(site, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel.check_peer(ours)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        with pytest.raises(channel.ChannelError, match="expected 12345"):
            channel.check_peer(ours)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (struct.pack(">Q", 1 << 40), "announced a message of 1099511627776 bytes"),
        (struct.pack(">Q", 8) + b"gibber", "broke off after 6 of a message's 8 bytes"),
        (struct.pack(">Q", 6) + b"gibber", "6 bytes that are no message"),
    ],
)
def test_what_is_no_message_does_not_end_it(running: Service, site: Path, sent: bytes, told: str) -> None:
    with channel.connected(channel.socket_path(site, 1)) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    wait_until(lambda: told in events(site), f"'{told}' in the journal")
    assert running.process.poll() is None


def test_a_second_trainer_of_a_site_is_refused(running: Service, site: Path, small_params: Params) -> None:
    with pytest.raises(StageError, match="another trainer serves site 'cubes-1'"):
        Trainer(site, small_params, 1).serve()
    with pytest.raises(StageError, match="holds partitions 0, 1; --partition says which"):
        Trainer(site, small_params)
    with pytest.raises(StageError, match="holds no partition 7; there are 0, 1"):
        Trainer(site, small_params, 7)


def test_without_a_trainer_the_reply_says_what_to_do(
    prepared: Path,
    params_content: dict[str, Any],
    small_params: Params,
    start: Tensors,
    stats: Stats,
    tmp_path: Path,
) -> None:
    site = lay_out_site(prepared, tmp_path / "site", params_content)
    training = small_params.training.model_copy(update={"local_steps": 100_000})
    task = site_task(small_params, locked_base(site), training=training)
    asked = with_model(task, protocol.TRAIN, start, stats)
    absent = site_app(asked, node(site, 0)).error.reason
    assert absent.startswith("TrainerAway: the site's trainer does not run; ") and "`zk0 client start`" in absent
    replies = []
    with trainer(site, 0) as ended:
        waiting = threading.Thread(target=lambda: replies.append(site_app(asked, node(site, 0))))
        waiting.start()
        wait_until(lambda: f"{protocol.TRAIN} received" in events(site), "the training")
        ended.process.kill()
        waiting.join(30)
    assert replies[0].error.reason.startswith("TrainerAway: the site's trainer ended while it had the message")


def test_a_trainer_that_is_started_again_gets_the_message_it_died_with(
    prepared: Path,
    params_content: dict[str, Any],
    small_params: Params,
    start: Tensors,
    stats: Stats,
    tmp_path: Path,
) -> None:
    """And gives the reply that it would have given; what kills it every time ends after a few times."""
    site = lay_out_site(prepared, tmp_path / "site", params_content)
    training = small_params.training.model_copy(update={"local_steps": 30})
    asked = with_model(site_task(small_params, locked_base(site), training=training), protocol.TRAIN, start, stats)
    waits = node(site, 0)
    waits.node_config["trainer-wait-s"] = 120
    replies = []
    with trainer(site, 0) as first:
        waiting = threading.Thread(target=lambda: replies.append(site_app(asked, waits)))
        waiting.start()
        wait_until(lambda: f"{protocol.TRAIN} received" in events(site), "the training")
        first.process.kill()
        first.process.wait()
    with trainer(site, 0) as second:
        waiting.join(120)
        undisturbed = site_app(asked, node(site, 0))
        kept = [digest_tensors(wire.unpack(one.content, protocol.DELTA)) for one in (*replies, undisturbed)]
        assert kept[0] == kept[1]
        waits.node_config["trainer-wait-s"] = 1
        second.process.kill()
        second.process.wait()
        assert site_app(asked, waits).error.reason.startswith("TrainerAway: the site's trainer does not run")


def test_where_a_path_has_no_shorter_name_a_long_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS; the socket itself is the same on both."""
    monkeypatch.setattr(sys, "platform", "darwin")
    long = tmp_path / ("a-long-name-" * 8) / "left.sock"
    long.parent.mkdir()
    with pytest.raises(channel.ChannelError, match="a folder with a shorter path"), channel.listening(long):
        pass
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        channel.listening(Path(folder) / "short.sock"),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(f"{folder}/short.sock")


def test_what_a_killed_trainer_leaves_of_its_socket_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with channel.listening(path):
        path.rename(tmp_path / "kept")
    (tmp_path / "kept").rename(path)
    with pytest.raises(ConnectionRefusedError), channel.connected(path):
        pass
    with channel.listening(path), channel.connected(path):
        pass
    assert not path.exists()


def test_the_client_app_is_light() -> None:
    code = "import sys, zk0.network.client.app; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "flwr" in done.stdout.split()
    assert not {"torch", "lerobot", "transformers", "pandas", "scipy", "mlflow"} & set(done.stdout.split())


def events(site: Path) -> str:
    """What is in the site's journal."""
    return (site / "results/site/events.jsonl").read_text()
