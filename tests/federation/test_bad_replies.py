"""A round in which a site fails, lies or keeps silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from federated_sites import (
    BAD_UPDATES,
    BASE,
    LIMIT,
    MakeServer,
    Spoil,
    app_of,
    averaged,
    crash,
    spoilt,
    train_round,
    values,
)
from flwr.app import Context, Message, RecordDict

from zk0.federation import protocol, wire
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.rounds import first_state, run_round
from zk0.federation.server import FederationError, Server
from zk0.federation.site import open_site
from zk0.federation.state import RoundState
from zk0.federation.statistics import moments_of
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors
from zk0.records.files import read_lines
from zk0.records.journal import Journal


@pytest.mark.parametrize("fault", BAD_UPDATES)
def test_bad_update_is_left_out_and_the_rest_averaged(
    make_server: MakeServer,
    state: RoundState,
    stats: Stats,
    updates: dict[str, tuple[Tensors, float]],
    fault: str,
) -> None:
    spoil, reason = BAD_UPDATES[fault]
    server = make_server(spoilt(protocol.TRAIN, spoil))

    tensors, records, _ = train_round(server, state, stats)

    assert [record.site for record in records] == ["cubes-0"]
    assert reason in server.left_out["cubes-1"]
    assert digest_tensors(tensors) == averaged(state.tensors, updates["cubes-0"])
    (event,) = [e for e in read_lines(server.journal._path) if e["event"] == "site-left-out"]
    assert event["site"] == "cubes-1" and reason in event["message"]


def test_bad_update_of_the_first_site_spoils_nothing(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    server = make_server(spoilt(protocol.TRAIN, BAD_UPDATES["nan"][0], partition=0))

    assert digest_tensors(train_round(server, state, stats)[0]) == averaged(state.tensors, updates["cubes-1"])


def test_too_few_good_replies_end_the_run_with_site_and_reason(
    make_server: MakeServer, state: RoundState, stats: Stats
) -> None:
    server = make_server(spoilt(protocol.TRAIN, BAD_UPDATES["nan"][0]), min_replies=1.0)

    with pytest.raises(FederationError) as ended:
        run_round(server, state, stats)

    message = str(ended.value)
    assert message.startswith("round 1: 1 of 2 sites trained well and federation.min_replies asks for 1. Left out: ")
    assert "cubes-1: its update is refused: tensor 'model." in message and "non-finite" in message


def test_too_few_updates_for_a_strategy_end_the_run_as_too_few_replies_do(
    make_server: MakeServer, state: RoundState, stats: Stats
) -> None:
    server = make_server(strategy="fedmedian")

    with pytest.raises(
        FederationError, match=r"round 1: 2 updates are too few .* it needs 3.*Complete rounds are saved"
    ):
        train_round(server, state, stats)


def test_no_good_reply_is_never_enough(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    with pytest.raises(FederationError, match=r"round 1: 0 of 2 sites trained well.*cubes-0 says: .OSError"):
        train_round(make_server(app_of(_fails_training), min_replies=0.01), state, stats)


def _fails_training(message: Message, context: Context) -> Message:
    if message.metadata.message_type == protocol.TRAIN:
        crash(message.content)
    return client_app(message, context)


def test_site_that_fails_to_evaluate_keeps_its_update(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    server = make_server(spoilt(protocol.EVALUATE, values(held_out_loss=float("nan"))))

    row = run_round(server, state, stats).rounds[-1]

    assert row.left_out == {"cubes-1": "the reply's held_out_loss is nan: expected a finite number"}
    assert row.sites["cubes-1"].held_out_loss is None and row.sites["cubes-1"].examples == 2
    assert row.held_out_loss == row.sites["cubes-0"].held_out_loss


class Silent(InProcessGrid):
    """Loses what the second node answers to training."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages, timeout=timeout):
            if (reply.metadata.src_node_id, reply.metadata.message_type) != (2, protocol.TRAIN):
                yield reply


def test_silent_site_is_left_out_after_the_timeout(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    server = make_server(grid=Silent, timeout_s=7.5)

    train_round(server, state, stats)

    assert server.left_out == {"cubes-1": "no reply within 7.5 s"}


def test_next_round_forgets_whom_the_last_left_out(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    rounds: list[int] = []

    def first_round_only(content: RecordDict) -> None:
        rounds.append(1)
        if len(rounds) == 1:
            crash(content)

    server = make_server(spoilt(protocol.TRAIN, first_round_only))
    one = run_round(server, state, stats)
    two = run_round(server, one, stats)

    assert [list(s.rounds[-1].left_out) for s in (one, two)] == [["cubes-1"], []]
    assert two.rounds[-1].sites.keys() == {"cubes-0", "cubes-1"}


def _nan_moments(content: RecordDict) -> None:
    tensors = {name: tensor.clone() for name, tensor in wire.unpack(content, protocol.MOMENTS).items()}
    tensors["low"][0] = float("nan")
    wire.put(content, protocol.MOMENTS, wire.encode(tensors))


@pytest.mark.parametrize(
    ("spoil", "reason"), [(crash, "the site failed: cubes-1 says: "), (_nan_moments, "statistics 'low' are not finite")]
)
def test_a_site_whose_statistics_are_refused_has_no_part_in_the_normalisation(
    make_server: MakeServer, start: Tensors, prepared: Path, spoil: Spoil, reason: str
) -> None:
    server = make_server(spoilt(protocol.STATISTICS, spoil))

    state = first_state(server, start)

    alone = moments_of(open_site(prepared, 0, LIMIT).train_frames)
    assert state.moments().count == alone.count and np.array_equal(state.moments().low, alone.low)
    assert reason in state.rounds[0].left_out["cubes-1"]


def test_too_few_statistics_begin_no_run(make_server: MakeServer, start: Tensors) -> None:
    server = make_server(spoilt(protocol.STATISTICS, crash), min_replies=1.0)

    with pytest.raises(FederationError, match=r"round 0: 1 of 2 sites sent statistics well .* Left out: cubes-1: "):
        first_state(server, start)


def test_a_node_without_data_is_left_out_of_the_meeting(prepared: Path, quick: Params, tmp_path: Path) -> None:
    grid, journal = InProcessGrid(client_app, prepared, 3, LIMIT), Journal(tmp_path / "events.jsonl")
    server = Server(grid, quick, "test", BASE, journal, tmp_path)

    assert [manifest.site for manifest in meet(server)] == ["cubes-0", "cubes-1"]
    (event,) = read_lines(tmp_path / "events.jsonl")
    assert event["message"] == (
        "node 3 is left out: it has no data to train on: the site failed: node 3 says: "
        '"DataError: there is no partition 2: the manifests are of 0, 1"'
    )


def test_a_node_serves_the_partition_of_its_place(prepared: Path, quick: Params, tmp_path: Path) -> None:
    def twin(content: RecordDict) -> None:
        found, told = protocol.read(content)
        told["manifest"]["partition"] = 0
        protocol.write(content, found, **told)

    grid = InProcessGrid(spoilt(protocol.SUMMARY, twin), prepared, 2, LIMIT)
    federation = quick.federation.model_copy(update={"min_replies": 1.0})
    params = quick.model_copy(update={"federation": federation})

    with pytest.raises(FederationError, match=r"node 2: it has no data .*its manifest is of partition 0, expected 1"):
        meet(Server(grid, params, "test", BASE, Journal(tmp_path / "e"), tmp_path))
