"""A round that goes well, over real messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from federated_sites import (
    LIMIT,
    MakeServer,
    ask,
    averaged,
    spoilt,
    train_round,
    values,
)
from flwr.app import Message, RecordDict

from zk0.data.manifest import read_manifests
from zk0.federation import protocol, wire
from zk0.federation.aggregation import StreamingMean
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.rounds import judge, run_round
from zk0.federation.state import RoundState
from zk0.federation.statistics import Moments
from zk0.federation.update_buffer import in_order
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors
from zk0.records.files import read_lines
from zk0.records.run import SiteRound


def test_server_meets_sites_in_partition_order(make_server: MakeServer) -> None:
    server = make_server()

    assert server.sites == {0: "cubes-0", 1: "cubes-1"} and server.nodes == {0: 1, 1: 2}


def test_normalisation_is_that_of_all_frames(make_server: MakeServer, moments: Moments) -> None:
    found = make_server().merged_moments()

    for name, tensor in moments.to_tensors().items():
        assert torch.equal(found.to_tensors()[name], tensor)


def test_round_averages_by_examples_and_tells_all(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    server = make_server()

    after = run_round(server, state, stats)

    row = after.rounds[-1]
    assert after.round == row.round == 1 and len(after.rounds) == 2
    mean = StreamingMean(state.tensors)
    for update, weight in updates.values():
        mean.fold(update, weight)
    expected = {name: state.tensors[name] + step for name, step in mean.finish().items()}
    assert digest_tensors(after.tensors) == row.digest == digest_tensors(expected)
    assert after.used == {0: 1, 1: 1}
    assert row.sites.keys() == {"cubes-0", "cubes-1"} and row.left_out == {}
    sites = list(row.sites.values())
    assert row.train_loss == pytest.approx(np.mean([site.train_loss for site in sites]))
    assert row.bytes_up == sum(site.bytes_up for site in sites) > 4 * sum(t.numel() for t in state.tensors.values())
    assert row.cpu_s is not None and row.memory_bytes is not None
    assert row.cpu_s > 0 and 50e6 < row.memory_bytes <= psutil.virtual_memory().total
    assert all(site.examples == 2 and site.update_norm > 0 and site.held_out_loss > 0 for site in sites)
    events = [event["event"] for event in read_lines(server.journal._path)]
    assert events == ["round-start", "train", "train", "aggregate", "evaluate"]


def test_held_out_loss_is_weighted_by_frames(
    make_server: MakeServer, prepared: Path, start: Tensors, stats: Stats
) -> None:
    mean, sites = judge(make_server(), Model.of(start), stats, 0)
    frames = [manifest.held_out_frames for manifest in read_manifests(prepared)[0]]

    losses = [sites[name]["held_out_loss"] for name in ("cubes-0", "cubes-1")]
    assert mean == pytest.approx(float(np.average(losses, weights=frames)))


def test_equal_weighting_takes_no_count(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    modest = spoilt(protocol.TRAIN, values(examples=1))
    fair = [
        digest_tensors(train_round(make_server(app, weighting="equal"), state, stats)[0])
        for app in (client_app, modest)
    ]
    by_examples = digest_tensors(train_round(make_server(modest), state, stats)[0])

    assert fair[0] == fair[1] != by_examples


def test_a_site_with_the_larger_loss_counts_for_more(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    sites = {"cubes-0": SiteRound(held_out_loss=1.0), "cubes-1": SiteRound(held_out_loss=3.0)}
    told = replace(state, rounds=(state.rounds[0].model_copy(update={"sites": sites}),))

    delta, updates, _ = train_round(make_server(weighting="loss"), told, stats)

    assert [update.weight for update in updates] == [2 * 0.5, 2 * 1.5]
    assert digest_tensors(delta) != digest_tensors(train_round(make_server(), told, stats)[0])


def test_fedprox_with_mu_0_asks_for_what_fedavg_asks(make_server: MakeServer) -> None:
    ours = protocol.Header(run="test", round=1, partition=0)

    assert make_server(strategy="fedprox", proximal_mu=0.0).task(ours) == make_server().task(ours)
    assert make_server(strategy="fedprox", proximal_mu=0.1).task(ours).proximal_mu == 0.1


class Shuffled(InProcessGrid):
    """Answers in the reverse order, twice, and for a node that nobody asked."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        replies = [*super().send_and_receive(messages, timeout=timeout)][::-1]
        yield from replies
        yield from replies
        vars(replies[0].metadata)["_src_node_id"] = 99
        yield replies[0]


def test_order_of_replies_changes_nothing(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    server = make_server(grid=Shuffled)

    tensors, records, _ = train_round(server, state, stats)

    assert digest_tensors(tensors) == averaged(state.tensors, *updates.values())
    assert [record.site for record in records] == ["cubes-0", "cubes-1"]
    assert server.left_out == {}


def test_early_reply_waits_only_for_its_turn(prepared: Path, tmp_path: Path) -> None:
    def reply_of(node: int) -> Message:
        return ask(InProcessGrid(client_app, prepared, 4, LIMIT), node, protocol.SUMMARY)

    asked: list[int] = []

    def arrivals() -> Iterator[Message]:
        for node in (2, 1, 4):  # 3 never comes
            asked.append(node)
            yield reply_of(node)

    seen = [(message.metadata.src_node_id, len(asked)) for message in in_order(arrivals(), [1, 2, 3, 4], tmp_path)]

    assert seen == [(1, 2), (2, 2), (4, 3)]


def test_early_replies_wait_on_disk_in_one_file(tmp_path: Path) -> None:
    """Three are early, then each in turn a late and an early one: as much room as three need, however many come."""
    order = [2, 3, 4, 1, *(node for late in range(5, 41, 2) for node in (late + 1, late))]

    def update(node: int) -> Tensors:
        return {"a": torch.arange(500.0) + node, "b": torch.tensor(float(node))}

    def arrivals() -> Iterator[Message]:
        for node in order:
            content = RecordDict()
            wire.put(content, protocol.DELTA, wire.encode(update(node)))
            yield Message(content, reply_to=Message(RecordDict(), node, protocol.TRAIN))

    waiting, seen = tmp_path / "waiting", []
    for reply in in_order(arrivals(), range(1, 41), waiting):
        links = list(Path("/proc/self/fd").iterdir())
        files = [link for link in links if str(waiting) in str(link.resolve())]
        assert len(files) == 1 and files[0].stat().st_size == 3 * 501 * 4
        node = reply.metadata.src_node_id
        found = wire.unpack(reply.content, protocol.DELTA)
        assert all(torch.equal(tensor, found[name]) for name, tensor in update(node).items())
        seen.append(node)

    assert seen == list(range(1, 41))
    assert list(waiting.iterdir()) == []
