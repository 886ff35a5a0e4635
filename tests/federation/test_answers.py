"""What sites say is data: whatever is wrong with a reply costs its own site that one message, and nobody else any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federated_sites import BASE, LIMIT, MakeServer, Spoil, app_of, crash, header, spoilt, values
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from zk0.federation import answers, protocol, wire
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.protocol import ERROR_CODE, GRID_CODE, LONGEST_HEADER
from zk0.federation.rounds import first_state, run_round
from zk0.federation.server import Server
from zk0.federation.state import RoundState, StateFolder
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, Stats
from zk0.policy.trainable import Tensors
from zk0.records.files import read_lines
from zk0.records.journal import Journal
from zk0.words import LONGEST

DEEP, LONG = 100_000, 10**6
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
EVIL = "all is well\x1b[2J\r\nround 9: kitchen trained \u202e[red]\ud800" + "x" * LONG


def text(change: Callable[[str], str]) -> Spoil:
    """Rewrites a header as text."""

    def spoil(content: RecordDict) -> None:
        content["header"] = ConfigRecord({"json": change(str(content["header"]["json"]))})

    return spoil


def number(name: str, literal: str) -> Spoil:
    """Writes a literal in place of a value, whether JSON has such or not."""

    def change(found: str) -> str:
        fields = json.loads(found)
        fields["values"][name] = "@"
        return json.dumps(fields).replace('"@"', literal)

    return text(change)


def manifest(**changes: Any) -> Spoil:
    def spoil(content: RecordDict) -> None:
        found, told = protocol.read(content)
        protocol.write(content, found, manifest=told["manifest"] | changes)

    return spoil


def array(name: str, **changes: Any) -> Spoil:
    """Changes what the first array of a record states, or its data."""

    def spoil(content: RecordDict) -> None:
        found = next(iter(content[name].values()))
        for attribute, value in changes.items():
            setattr(found, attribute, value)

    return spoil


def moments(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(content: RecordDict) -> None:
        tensors = {name: change(tensor) for name, tensor in wire.unpack(content, protocol.MOMENTS).items()}
        wire.put(content, protocol.MOMENTS, wire.encode(tensors))

    return spoil


def more(record: str) -> Spoil:
    """Adds tensors that nobody asked for."""
    return lambda content: wire.put(content, record, wire.encode({"a": torch.zeros(1000)}))


def many_tensors(name: str) -> Spoil:
    def spoil(content: RecordDict) -> None:
        content[name].update({f"t{n}": Array("fp32", (1,), "zk0", bytes(4)) for n in range(10_000)})

    return spoil


HEADERS: dict[str, Spoil] = {
    "deep": text(lambda found: "[" * DEEP),
    "deep-in-values": number("train_s", "[" * DEEP),
    "long": text(lambda found: found + " " * LONGEST_HEADER),
    "list-for-table": text(lambda found: json.dumps([json.loads(found)])),
    "list-for-values": text(lambda found: json.dumps(json.loads(found) | {"values": []})),
    "null": text(lambda found: "null"),
    "bytes": lambda content: content.update(header=ConfigRecord({"json": b"{}"})),
    "numbers": lambda content: content.update(header=MetricRecord({"json": 1.0})),
    "tensors": lambda content: content.update(header=ArrayRecord()),
    "surrogate": text(lambda found: found.replace("test", "\\ud800")),
    "raw-surrogate": text(lambda found: found.replace("test", "\ud800")),
    "run-of-megabytes": text(lambda found: found.replace("test", "x" * (LONGEST_HEADER // 2))),
    "round-of-401-digits": text(lambda found: json.dumps(json.loads(found) | {"round": int("9" * 401)})),
    "round-true": text(lambda found: json.dumps(json.loads(found) | {"round": True})),
    "protocol-of-megabytes": text(lambda found: json.dumps(json.loads(found) | {"protocol": ["x" * 100_000]})),
    "more-fields": text(lambda found: json.dumps(json.loads(found) | {"more": 1})),
    "nothing": lambda content: content.clear(),
    "more-records": more("more"),
}
NUMBERS = ("9" * 401, "9" * 5000, "1e308", "1e999", "-1e308", "NaN", "-Infinity", "true", '"1"', "[]", "{}", "null")
LIES: dict[str, tuple[str, Spoil]] = {
    **{f"header-{name}": (protocol.TRAIN, spoil) for name, spoil in HEADERS.items()},
    **{
        f"examples-{each[:9]}": (protocol.TRAIN, number("examples", each))
        for each in (*NUMBERS, "0", "-1", "2.0", "1e12")
    },
    **{f"loss-{each[:9]}": (protocol.EVALUATE, number("held_out_loss", each)) for each in NUMBERS},
    **{f"frames-{each[:9]}": (protocol.EVALUATE, number("frames", each)) for each in ("1e12", "10000000000", "0")},
    "epsilon": (protocol.EVALUATE, number("epsilon", "-1")),
    "lacks-a-list": (protocol.TRAIN, values(lacks=[1])),
    "lacks-megabytes": (protocol.TRAIN, values(lacks="x" * (LONGEST_HEADER // 2))),
    "lacks-always": (protocol.TRAIN, values(lacks="abc")),
    "evaluation-with-tensors": (protocol.EVALUATE, more(protocol.DELTA)),
    "summary-with-tensors": (protocol.SUMMARY, more(protocol.MOMENTS)),
    "many-tensors": (protocol.TRAIN, many_tensors(protocol.DELTA)),
    "names-of-a-megabyte": (
        protocol.TRAIN,
        lambda content: content[protocol.DELTA].update({"x" * LONG: Array("fp32", (1,), "zk0", bytes(4))}),
    ),
    "digest-of-a-megabyte": (
        protocol.TRAIN,
        lambda content: content.update({"delta.digest": ConfigRecord({"digest": "x" * LONG})}),
    ),
    "dtype-of-a-megabyte": (protocol.TRAIN, array(protocol.DELTA, dtype="x" * LONG)),
    **{
        f"{record}-shape-{n}": (kind, array(record, shape=shape))
        for kind, record in ((protocol.TRAIN, protocol.DELTA), (protocol.STATISTICS, protocol.MOMENTS))
        for n, shape in enumerate(
            [(float("inf"),), (0, 10**30), (-1,), (2.0,), (True,), (1,) * 10**5, ("3",), (10**5000,), ((1,),)]
        )
    },
    "data-too-long": (protocol.TRAIN, array(protocol.DELTA, data=bytes(10**7))),
    "data-too-short": (protocol.TRAIN, array(protocol.DELTA, data=b"")),
    "statistics-bfloat16": (protocol.STATISTICS, moments(lambda t: t.to(torch.bfloat16))),
    "statistics-float32": (protocol.STATISTICS, moments(lambda t: t.to(torch.float32))),
    "statistics-of-3-joints": (protocol.STATISTICS, moments(lambda t: t[:3] if t.ndim else t)),
    "statistics-of-no-joints": (protocol.STATISTICS, moments(lambda t: t[:0] if t.ndim else t)),
    "statistics-more": (protocol.STATISTICS, many_tensors(protocol.MOMENTS)),
    "statistics-none": (protocol.STATISTICS, lambda content: content.pop(protocol.MOMENTS)),
    **{f"fps-{str(v)[:9]}": (protocol.SUMMARY, manifest(fps=v)) for v in (0, 10**400, -1, "many", None, [1], 1e308)},
    **{f"site-{v[:5]!a}": (protocol.SUMMARY, manifest(site=v)) for v in ("", "../x", "x" * 200, "a b", EVIL[:40])},
    "episodes": (protocol.SUMMARY, manifest(train_episodes=[10**30])),
    "tasks": (protocol.SUMMARY, manifest(tasks=["x"] * 20_000)),
    "joint-map": (protocol.SUMMARY, manifest(joint_map={"scale": [float("nan")], "offset": []})),
    "another-partition": (protocol.SUMMARY, manifest(partition=0)),
    "more-in-the-manifest": (protocol.SUMMARY, manifest(more=1)),
    "manifest-a-list": (protocol.SUMMARY, values(manifest=[])),
    "summary-for-another-round": (protocol.SUMMARY, header(round=3)),
}


# One of each class, for a whole round; the others are told to the parser alone.
IN_A_ROUND = (
    "header-deep",
    "header-list-for-table",
    "header-surrogate",
    "header-nothing",
    "examples-999999999",
    "loss-1e308",
    "loss-NaN",
    "lacks-always",
    "evaluation-with-tensors",
    "names-of-a-megabyte",
    "delta-shape-0",
    "delta-shape-1",
    "statistics-bfloat16",
    "statistics-of-3-joints",
    "fps-100000000",
    "another-partition",
)
# What only those can see who know what came before.
_NOT_ALONE = ("another-partition", "lacks-always")

Asked = dict[str, tuple[Message, protocol.Header]]


@pytest.fixture(scope="module")
def asked(
    prepared: Path,
    quick: Params,
    stats: Stats,
    _untrained: tuple[LoadedPolicy, Tensors],
    tmp_path_factory: pytest.TempPathFactory,
) -> Asked:
    """By kind, the second site's honest reply, and the header that it must have."""
    kept: Asked = {}

    def keep(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if context.node_config["partition-id"] == 1:
            kept[message.metadata.message_type] = (reply, protocol.read(reply.content)[0])
        return reply

    folder = tmp_path_factory.mktemp("asked")
    grid = InProcessGrid(app_of(keep), prepared, 2, LIMIT)
    server = Server(grid, quick, "test", BASE, Journal(folder / "events.jsonl"), folder)
    meet(server)
    server.merged_moments()
    for kind in (protocol.TRAIN, protocol.EVALUATE):
        list(server.ask(kind, 1, Model.of(dict(_untrained[1])), stats))
    return kept


@pytest.fixture(scope="module")
def away() -> dict[str, str]:
    """By kind, the model after a round in which the second site failed to answer that kind; filled as it is needed."""
    return {}


def copied(content: RecordDict) -> RecordDict:
    copy = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            copy[name] = ArrayRecord()
            for key, one in record.items():
                copy[name][key] = Array(one.dtype, one.shape, one.stype, b"")
                copy[name][key].data = one.data
        else:
            copy[name] = ConfigRecord(dict(record))
    return copy


def parsed(asked: Asked, start: Tensors, kind: str, spoil: Spoil = lambda content: None) -> dict[str, Any]:
    honest, expected = asked[kind]
    message = Message(copied(honest.content), reply_to=honest)
    spoil(message.content)
    told = answers.parse(message, kind, expected, "cubes-1", answers.wanted(kind, start, "fp32", 6))
    return answers.manifest_in(told).content() if kind == protocol.SUMMARY else told


def after_a_round(server: Server, start: Tensors) -> RoundState:
    state = first_state(server, dict(start))
    return run_round(server, state, state.moments().normalisation())


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie not in _NOT_ALONE])
def test_a_lie_is_one_kind_of_error_in_few_words(asked: Asked, start: Tensors, lie: str) -> None:
    kind, spoil = LIES[lie]
    parsed(asked, start, kind)

    with pytest.raises(answers.ReplyError) as refused:
        parsed(asked, start, kind, spoil)

    assert len(str(refused.value)) <= LONGEST and str(refused.value).isprintable()


@pytest.mark.parametrize("lie", IN_A_ROUND)
def test_a_lie_costs_its_site_one_message(
    make_server: MakeServer, start: Tensors, away: dict[str, str], tmp_path: Path, lie: str
) -> None:
    kind, spoil = LIES[lie]
    if kind not in away:
        away[kind] = after_a_round(make_server(spoilt(kind, crash)), start).digest
        (tmp_path / "events.jsonl").unlink()

    state = after_a_round(make_server(spoilt(kind, spoil)), start)

    events = read_lines(tmp_path / "events.jsonl")
    told = {event["site"]: event["message"] for event in events if event["event"] == "site-left-out"}
    assert told.keys() == {"node 2" if kind == protocol.SUMMARY else "cubes-1"}
    assert all(message.isprintable() for message in told.values())
    assert state.digest == away[kind]
    folder = StateFolder(tmp_path / "state")
    folder.save(state)
    assert folder.load(1).rounds == state.rounds


@pytest.mark.parametrize("code", [ERROR_CODE, 0, 7])
def test_what_a_site_says_of_its_failure_is_marked_as_its_own(asked: Asked, code: int) -> None:
    honest, expected = asked[protocol.TRAIN]

    with pytest.raises(answers.ReplyError) as refused:
        answers.parse(Message(Error(code, EVIL), reply_to=honest), protocol.TRAIN, expected, "cubes-1", {})

    shown = str(refused.value)
    assert shown.startswith(f'the site failed: cubes-1 says: "all is well{UNREADABLE}[2J round 9: kitchen')
    assert shown.endswith('"') and len(shown) <= LONGEST and shown.isprintable()


def test_what_the_grid_says_of_a_site_is_not_its_own(asked: Asked) -> None:
    honest, expected = asked[protocol.TRAIN]
    away = Message(Error(GRID_CODE, "its node is away"), reply_to=honest)

    with pytest.raises(answers.ReplyError, match=r"^the site failed: its node is away$"):
        answers.parse(away, protocol.TRAIN, expected, "cubes-1", {})


def test_words_of_a_manifest_are_fit_to_be_shown(asked: Asked, start: Tensors) -> None:
    words = EVIL.replace("\ud800", "")[:500]

    found = parsed(asked, start, protocol.SUMMARY, manifest(tasks=[words], camera_sources={"a\x1b]8;;": "[red]\n"}))

    (task,) = found["tasks"]
    assert len(task) == LONGEST and task.isprintable()
    assert found["camera_sources"] == {f"a{UNREADABLE}]8;;": "[red]"}


def test_what_was_not_asked_for_is_not_kept(asked: Asked, start: Tensors) -> None:
    assert parsed(asked, start, protocol.TRAIN, values(more="x")) == parsed(asked, start, protocol.TRAIN)
