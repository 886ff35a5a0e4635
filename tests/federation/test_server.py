"""Server and sites, over real messages; one site's replies may be spoilt on their way out."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.data.manifest import Manifest, read_manifests
from zk0.federation import protocol, wire
from zk0.federation.aggregation import StreamingMean
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import ERROR_CODE, InProcessGrid
from zk0.federation.journal import Journal, read_lines
from zk0.federation.replies import in_order
from zk0.federation.rounds import evaluate_round, first_state, moments_in, run_round, train_round
from zk0.federation.run import config_digest, run_federation
from zk0.federation.server import FederationError, Server
from zk0.federation.site import forget, open_site, warm_policy
from zk0.federation.state import RoundState
from zk0.federation.statistics import Moments, merge_all, moments_of
from zk0.files import read_json, write_json
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, Stats, load_checkpoint
from zk0.policy.trainable import Tensors, digest_tensors, trainable_tensors

BASE = ("random:nano", "digest")
LIMIT = 10**9
Spoil = Callable[[RecordDict], Any]
MakeServer = Callable[..., Server]


def app_of(site: Callable[[Message, Context], Message]) -> ClientApp:
    """A ClientApp that answers everything with one function."""
    app = ClientApp()
    for register in (app.query("summary"), app.query("statistics"), app.train(), app.evaluate()):
        register(site)
    return app


def spoilt(kind: str, spoil: Spoil, partition: int = 1) -> ClientApp:
    """The real ClientApp, but one site's replies of one kind are changed on their way out."""

    def answer(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == kind and context.node_config["partition-id"] == partition:
            spoil(reply.content)
        return reply

    return app_of(answer)


def header(**changes: Any) -> Spoil:
    """Rewrites a reply's header."""

    def spoil(content: RecordDict) -> None:
        found, values = protocol.read(content)
        protocol.write(content, found.model_copy(update=changes), **values)

    return spoil


def values(**changes: Any) -> Spoil:
    """Rewrites a reply's values; None takes one out."""

    def spoil(content: RecordDict) -> None:
        found, told = protocol.read(content)
        told |= changes
        protocol.write(content, found, **{name: value for name, value in told.items() if value is not None})

    return spoil


def delta(change: Callable[[Tensors, str], Any]) -> Spoil:
    """Changes an update's first tensor, and states the new digest: a site that lies well."""

    def spoil(content: RecordDict) -> None:
        tensors = {name: tensor.clone() for name, tensor in wire.unpack(content, protocol.DELTA).items()}
        change(tensors, next(iter(tensors)))
        wire.put(content, protocol.DELTA, wire.encode(tensors))

    return spoil


def damage(content: RecordDict) -> None:
    """Changes an update on the way, so that its digest is another."""
    tensors = wire.unpack(content, protocol.DELTA)
    name = next(iter(tensors))
    content[protocol.DELTA] = wire.encode(tensors | {name: tensors[name] + 1})


def crash(content: RecordDict) -> None:
    raise OSError("the disk is full")


BAD_UPDATES: dict[str, tuple[Spoil, str]] = {
    "nan": (delta(lambda t, n: t[n].view(-1)[:2].fill_(float("nan"))), "has 2 non-finite values of"),
    "shape": (delta(lambda t, n: t.update({n: t[n][None]})), "has shape (1, "),
    "type": (delta(lambda t, n: t.update({n: t[n].double()})), "is torch.float64, expected torch.float32"),
    "missing": (delta(lambda t, n: t.pop(n)), "is missing (1 of 47 are)"),
    "unknown": (delta(lambda t, n: t.update(more=t[n])), "tensor 'more' is not one that trains"),
    "damaged": (damage, "it was damaged or changed"),
    "no-update": (lambda content: content.pop(protocol.DELTA), "the message has no tensors 'delta'"),
    "other-codec": (
        lambda c: wire.put(c, protocol.DELTA, wire.encode(wire.unpack(c, protocol.DELTA), "int8")),
        "is encoded as 'int8', expected 'fp32'",
    ),
    "other-round": (header(round=7), "the reply is for round 7, expected 1"),
    "other-name": (header(partition=0), "the reply is for partition 0, expected 1"),
    "other-run": (header(run="xyz"), "the reply is for run xyz, expected test"),
    "no-header": (lambda content: content.pop("header"), "the message has no header"),
    "no-examples": (values(examples=None), "the reply's examples is None, expected a finite number"),
    "no-weight": (values(examples=0), "the reply's examples is 0, expected a number above 0"),
    "all-weight": (values(examples=float("inf")), "the reply's examples is inf, expected a finite number"),
    "nan-loss": (values(train_loss=float("nan")), "the reply's train_loss is nan, expected a finite number"),
    "crash": (crash, "the site failed: OSError: the disk is full"),
}


@pytest.fixture(scope="module")
def quick(small_params: Params) -> Params:
    """One step of two frames, and half of the sites are enough."""
    training = small_params.training.model_copy(update={"local_steps": 1, "batch": 2})
    federation = small_params.federation.model_copy(update={"min_replies": 0.5})
    return small_params.model_copy(update={"training": training, "federation": federation})


@pytest.fixture
def make_server(prepared: Path, quick: Params, tmp_path: Path) -> MakeServer:
    """A server that has met its two sites: ``make_server(app, grid=..., **federation)``."""

    def make(app: ClientApp = client_app, grid: type[InProcessGrid] = InProcessGrid, **federation: Any) -> Server:
        params = quick.model_copy(update={"federation": quick.federation.model_copy(update=federation)})
        network = grid(app, prepared, 2, LIMIT)
        server = Server(network, params, "test", BASE, Journal(tmp_path / "events.jsonl"), tmp_path / "waiting")
        server.meet()
        server.begin_round()
        return server

    return make


@pytest.fixture(scope="module")
def moments(prepared: Path) -> Moments:
    """Of both sites."""
    return merge_all([moments_of(open_site(prepared, partition, LIMIT).train_frames) for partition in (0, 1)])


@pytest.fixture(scope="module")
def stats(moments: Moments) -> Stats:
    return moments.normalisation()


@pytest.fixture
def state(start: Tensors) -> RoundState:
    """Before the first round."""
    return RoundState(0, start, ({"round": 0, "held_out_loss": 1.0},), {})


@pytest.fixture(scope="module")
def updates(
    prepared: Path, quick: Params, stats: Stats, _untrained: tuple[LoadedPolicy, Tensors],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Tensors, float]]:  # fmt: skip
    """Each site's update and weight in the first round."""
    folder = tmp_path_factory.mktemp("updates")
    grid = InProcessGrid(client_app, prepared, 2, LIMIT)
    server = Server(grid, quick, "test", BASE, Journal(folder / "events.jsonl"), folder)
    server.meet()
    replies = server.ask_with_model(protocol.TRAIN, 1, Model.of(dict(_untrained[1])), stats)
    return {r.site: (wire.unpack(r.content, protocol.DELTA), float(r.values["examples"])) for r in replies}


def averaged(start: Tensors, *folded: tuple[Tensors, float]) -> str:
    """Digest of the mean of these updates."""
    mean = StreamingMean(start)
    for update, weight in folded:
        mean.fold(update, weight)
    return digest_tensors(mean.finish())


# -- the in-process engine -----------------------------------------------------------------------


def ask(grid: InProcessGrid, node: int, kind: str) -> Message:
    content = RecordDict()
    protocol.write(content, protocol.Header(run="test", round=0, partition=node - 1))
    (reply,) = grid.send_and_receive([Message(content, node, kind, group_id="0")])
    return reply


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
    assert reply.error.reason == "DataError: there is no partition 2: the manifests hold 2 sites"
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


# -- a round that goes well ----------------------------------------------------------------------


def test_server_meets_sites_in_partition_order(make_server: MakeServer) -> None:
    server = make_server()

    assert server.sites == {0: "cubes-0", 1: "cubes-1"} and server.nodes == [1, 2]


def test_normalisation_is_that_of_all_frames(make_server: MakeServer, moments: Moments) -> None:
    found = make_server().merged_moments()

    for name, tensor in moments.to_tensors().items():
        assert torch.equal(found.to_tensors()[name], tensor)


def test_round_averages_by_examples_and_tells_all(
    make_server: MakeServer, state: RoundState, stats: Stats, updates: dict[str, tuple[Tensors, float]]
) -> None:
    server = make_server()

    after = run_round(server, state, stats)

    row = after.rows[-1]
    assert after.round == row["round"] == 1 and len(after.rows) == 2
    mean = StreamingMean(state.tensors)
    for update, weight in updates.values():
        mean.fold(update, weight)
    expected = {name: state.tensors[name] + step for name, step in mean.finish().items()}
    assert digest_tensors(after.tensors) == row["digest"] == digest_tensors(expected)
    assert after.used == {0: 1, 1: 1}
    assert row["sites"].keys() == {"cubes-0", "cubes-1"} and row["left_out"] == {}
    sites = list(row["sites"].values())
    assert row["train_loss"] == pytest.approx(np.mean([site["train_loss"] for site in sites]))
    assert (
        row["bytes_up"] == sum(site["bytes_up"] for site in sites) > 4 * sum(t.numel() for t in state.tensors.values())
    )
    assert all(site["examples"] == 2 and site["update_norm"] > 0 and site["held_out_loss"] > 0 for site in sites)
    events = [event["event"] for event in read_lines(server.journal._path)]
    assert events == ["round-start", "train", "train", "aggregate", "evaluate"]


def test_held_out_loss_is_weighted_by_frames(
    make_server: MakeServer, prepared: Path, start: Tensors, stats: Stats
) -> None:
    mean, sites = evaluate_round(make_server(), Model.of(start), stats, 0)
    frames = [manifest.held_out_frames for manifest in read_manifests(prepared)[0]]

    losses = [sites[name]["held_out_loss"] for name in ("cubes-0", "cubes-1")]
    assert mean == pytest.approx(float(np.average(losses, weights=frames)))


def test_equal_weighting_takes_no_count(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    boasting = spoilt(protocol.TRAIN, values(examples=10**6))
    fair = [
        digest_tensors(train_round(make_server(app, weighting="equal"), state, stats)[0])
        for app in (client_app, boasting)
    ]
    by_examples = digest_tensors(train_round(make_server(boasting), state, stats)[0])

    assert fair[0] == fair[1] != by_examples


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


def test_early_reply_waits_on_disk(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(5.0), "b": torch.tensor(2.0)}
    replies = []
    for node in (2, 1):
        content = RecordDict()
        wire.put(content, protocol.DELTA, wire.encode(tensors))
        replies.append(Message(content, reply_to=Message(RecordDict(), node, protocol.TRAIN)))

    found = {reply.metadata.src_node_id: reply.content for reply in in_order(replies, [1, 2], tmp_path / "waiting")}

    assert list(found) == [1, 2]
    early = found[2].array_records[protocol.DELTA]["a"].data
    assert isinstance(early.obj, mmap.mmap)  # type: ignore[attr-defined]
    assert all(torch.equal(t, tensors[n]) for n, t in wire.unpack(found[2], protocol.DELTA).items())
    assert list((tmp_path / "waiting").iterdir()) == []


# -- a round with a bad reply --------------------------------------------------------------------


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


def test_no_good_reply_is_never_enough(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    with pytest.raises(FederationError, match=r"round 1: 0 of 2 sites trained well.*cubes-0: the site failed: OSError"):
        train_round(make_server(app_of(_fails_training), min_replies=0.01), state, stats)


def _fails_training(message: Message, context: Context) -> Message:
    if message.metadata.message_type == protocol.TRAIN:
        crash(message.content)
    return client_app(message, context)


def test_site_that_fails_to_evaluate_keeps_its_update(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    server = make_server(spoilt(protocol.EVALUATE, values(held_out_loss=float("nan"))))

    row = run_round(server, state, stats).rows[-1]

    assert row["left_out"] == {"cubes-1": "the reply's held_out_loss is nan, expected a finite number"}
    assert "held_out_loss" not in row["sites"]["cubes-1"] and row["sites"]["cubes-1"]["examples"] == 2
    assert row["held_out_loss"] == row["sites"]["cubes-0"]["held_out_loss"]


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

    assert [list(s.rows[-1]["left_out"]) for s in (one, two)] == [["cubes-1"], []]
    assert two.rows[-1]["sites"].keys() == {"cubes-0", "cubes-1"}


def test_every_site_must_send_statistics(make_server: MakeServer, start: Tensors) -> None:
    def nan_moments(content: RecordDict) -> None:
        tensors = {name: tensor.clone() for name, tensor in wire.unpack(content, protocol.MOMENTS).items()}
        tensors["low"][0] = float("nan")
        wire.put(content, protocol.MOMENTS, wire.encode(tensors))

    for spoil, reason in ((crash, "the site failed: OSError"), (nan_moments, "statistics 'low' are not finite")):
        server = make_server(spoilt(protocol.STATISTICS, spoil))
        with pytest.raises(FederationError, match=f"needs all of them. Left out: cubes-1: {reason}"):
            first_state(server, start)


def test_node_without_data_ends_the_meeting(prepared: Path, quick: Params, tmp_path: Path) -> None:
    server = Server(
        InProcessGrid(client_app, prepared, 3, LIMIT), quick, "test", BASE, Journal(tmp_path / "e"), tmp_path
    )

    with pytest.raises(FederationError, match="node 3 has no data to train on: DataError: there is no partition 2"):
        server.meet()


def test_two_nodes_cannot_serve_one_partition(prepared: Path, quick: Params, tmp_path: Path) -> None:
    def twin(content: RecordDict) -> None:
        found, told = protocol.read(content)
        told["manifest"]["partition"] = 0
        protocol.write(content, found, **told)

    grid = InProcessGrid(spoilt(protocol.SUMMARY, twin), prepared, 2, LIMIT)

    with pytest.raises(FederationError, match="2 nodes serve partitions 0; expected one node for each of 0 to 1"):
        Server(grid, quick, "test", BASE, Journal(tmp_path / "e"), tmp_path).meet()


# -- whole runs ----------------------------------------------------------------------------------


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A project of its own with the prepared manifests."""
    for manifest in (prepared / "data" / "manifests").iterdir():
        write_json(tmp_path / "project" / "data" / "manifests" / manifest.name, read_json(manifest))
    return tmp_path / "project"


PLAIN: dict[str, Any] = {}
LOSSY: dict[str, Any] = {"uplink": "int4", "downlink": "int8", "strategy": "fedadam", "server_learning_rate": 0.01}


@pytest.mark.parametrize(("settings", "moments"), [(PLAIN, False), (LOSSY, True)], ids=["plain", "lossy"])
def test_interrupted_run_ends_as_if_it_had_not_been(
    project: Path, quick: Params, tmp_path: Path, settings: dict[str, Any], moments: bool
) -> None:
    """Codecs' errors, kept moments and the server's optimiser are taken up again as well."""
    federation = quick.federation.model_copy(update=settings | {"min_replies": 1.0, "rounds": 3})
    training = quick.training.model_copy(update={"keep_moments": moments})
    params = quick.model_copy(update={"federation": federation, "training": training})
    whole = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)
    other = tmp_path / "other"
    for path in (project / "data" / "manifests").iterdir():
        write_json(other / "data" / "manifests" / path.name, read_json(path))
    seen: list[int] = []

    def dies_in_round_3(content: RecordDict) -> None:
        seen.append(1)
        if len(seen) == 3:
            crash(content)

    with pytest.raises(FederationError, match="round 3: 1 of 2 sites trained well"):
        run_federation(InProcessGrid(spoilt(protocol.TRAIN, dies_in_round_3), other, 2, LIMIT), other, params, BASE)
    forget()  # as another process would
    resumed = run_federation(InProcessGrid(client_app, other, 2, LIMIT), other, params, BASE)

    assert resumed["run"] == whole["run"] and resumed["resumed_at_rounds"] == [2]
    assert whole["resumed_at_rounds"] == []
    assert resumed["checkpoints"] == whole["checkpoints"]
    last = load_checkpoint(other / "checkpoints" / "last")
    rows = read_lines(other / "results" / "federation" / "rounds.jsonl")
    assert [row["round"] for row in rows] == [0, 1, 2, 3] and all(row["save_s"] > 0 for row in rows[3:])
    assert digest_tensors(trainable_tensors(last.policy)) == rows[3]["digest"]
    events = [event["event"] for event in read_lines(other / "results" / "federation" / "events.jsonl")]
    assert events.count("round-start") == 4 and events.count("resume") == 1 and events[-1] == "done"
    assert moments_in(RoundState(0, {}, (), _stats_of(other, resumed["run"]))).count == 2 * 3 * _mean_frames(project)
    versions = sorted(path.name for path in (other / "state" / whole["run"]).glob("sites/0001/*"))
    assert versions == (["round-0002", "round-0003"] if moments else [])


def test_a_model_travels_once_a_round(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    """Sites have the start, and train from what they were sent to evaluate."""
    server = make_server()
    server.held = dict.fromkeys(server.sites, state.digest)
    size = 4 * sum(tensor.numel() for tensor in state.tensors.values())

    one = run_round(server, state, stats)
    two = run_round(server, one, stats)

    for row in (one.rows[-1], two.rows[-1]):
        assert row["bytes_up"] == 2 * size
        assert 2 * size < row["bytes_down"] < 2 * size + 1000  # and the statistics
    int4 = run_round(make_server(uplink="int4", downlink="int4"), state, stats).rows[-1]
    assert int4["bytes_up"] < 0.14 * 2 * size


def test_site_that_lacks_the_model_gets_all_of_it(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    undisturbed = make_server(downlink="int8")
    expected = run_round(undisturbed, run_round(undisturbed, state, stats), stats)

    server = make_server(downlink="int8")
    one = run_round(server, state, stats)
    forget()  # the sites' process is another
    two = run_round(server, one, stats)

    assert two.digest == expected.digest and two.rows[-1]["left_out"] == {}
    assert two.rows[-1]["bytes_down"] > expected.rows[-1]["bytes_down"]


def test_site_that_goes_on_lacking_it_is_left_out(make_server: MakeServer, state: RoundState, stats: Stats) -> None:
    server = make_server(spoilt(protocol.TRAIN, values(lacks="abc")))

    train_round(server, state, stats)

    assert server.left_out == {"cubes-1": "the site still lacks model abc, which it was sent"}


def test_only_updates_that_were_averaged_count_as_used(
    make_server: MakeServer, state: RoundState, stats: Stats
) -> None:
    server = make_server(spoilt(protocol.TRAIN, BAD_UPDATES["nan"][0]), uplink="fp32")

    one = run_round(server, state, stats)

    assert one.used == {0: 1}


def test_adapters_train_travel_and_are_merged_into_the_checkpoint(project: Path, quick: Params) -> None:
    policy = quick.policy.model_copy(update={"lora_rank": 4})
    params = quick.model_copy(update={"policy": policy})

    report = run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, params, BASE)

    plain = load_checkpoint(project / "checkpoints" / "last")
    assert not any("lora" in name for name, _ in plain.policy.named_parameters())
    whole = trainable_tensors(plain.policy)
    start = warm_policy(project, BASE[0], "cpu").first
    changed = [name for name, tensor in whole.items() if not torch.equal(tensor, start[name])]
    assert len(changed) > 20
    rows = read_lines(project / "results" / "federation" / "rounds.jsonl")
    assert 0 < rows[1]["bytes_up"] == 2 * report["policy"]["trainable_bytes"]
    assert report["policy"]["trainable_parameters"] < 0.2 * sum(tensor.numel() for tensor in whole.values())


def _stats_of(root: Path, run: str) -> dict[str, Any]:
    return dict(read_json(root / "state" / run / "round-0003" / "state.json")["stats"])


def _mean_frames(root: Path) -> float:
    sites, _ = read_manifests(root)
    return sum(site.train_frames for site in sites) / 6


def test_cameras_the_policy_does_not_know_are_refused(project: Path, quick: Params) -> None:
    for path in (project / "data" / "manifests").iterdir():
        content = read_json(path)
        content["cameras"] = ["observation.images.side"]
        write_json(path, content)
    forget()

    with pytest.raises(
        FederationError, match=r"site 'cubes-0' has cameras observation\.images\.side, which the policy"
    ):
        run_federation(InProcessGrid(client_app, project, 2, LIMIT), project, quick, BASE)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 2}, False),
        ({"threads": 1}, False),
        ({"training": {"batch": 3}}, False),
        ({"federation": {"rounds": 3}}, False),
        ({"federation": {"timeout_s": 1.0, "min_replies": 0.5}}, True),
        ({"evaluation": {"rollouts": 5}}, True),
        ({"evaluation": {"loss_draws": 3}}, False),
        ({"tracking": {"experiment": "x"}}, True),
    ],
)
def test_run_is_another_when_its_model_would_be(small_params: Params, change: dict[str, Any], same: bool) -> None:
    content = small_params.model_dump()
    for section, value in change.items():
        content[section] = content[section] | value if isinstance(value, dict) else value
    manifests: list[dict[str, Any]] = [{"digest": "a"}, {"digest": "b"}]
    before = config_digest(small_params, "base", manifests)

    assert (config_digest(Params.model_validate(content), "base", manifests) == before) is same
    assert config_digest(small_params, "other", manifests) != before
    assert config_digest(small_params, "base", manifests[::-1]) != before


def test_sites_data_is_loaded_once(prepared: Path) -> None:
    site = open_site(prepared, 0, LIMIT)

    assert isinstance(site.manifest, Manifest)
    assert open_site(prepared, 0, LIMIT) is site
    assert site.train_frames is site.train_frames and site.held_out_frames is site.held_out_frames
    assert len(site.train_frames) == site.manifest.train_frames
