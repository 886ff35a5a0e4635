"""A federation of four, of which one may lie: real sites and messages, on the in-process engine.

What an honest site answers depends on the message alone, so it is worked out once and remembered: a run with another
lie in it takes the server's own work, and no training.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import StringIO
from pathlib import Path
from typing import Any, cast

from federated_sites import BASE, LIMIT, app_of
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.data.manifest import Manifest
from zk0.digests import digest_parts
from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet, misfits
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.protocol import ERROR_CODE, GRID_CODE, HEADER
from zk0.federation.rounds import first_state, run_round
from zk0.federation.run import run_federation
from zk0.federation.server import Server
from zk0.federation.start import warm_start
from zk0.federation.state import RoundState, StateFolder
from zk0.measuring.timing import peak_bytes, reset_peak
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import Site, SiteRegistry
from zk0.network.server.control import members_of
from zk0.network.server.roll_call import RollCall
from zk0.params import Params
from zk0.records.journal import Journal, print_event

SITES = ("lab", "kitchen", "garage", "attic")
LIAR = "lab"  # the first: whatever is taken from the first site is taken from it
LONGEST_REASON = 300
AWAY = "its node is away"

Tell = Callable[[Message], Message]

_LEFT_OUT = re.compile(r"\w+ (?:is left out|cannot take part): (?P<reason>.*)", re.DOTALL)


@dataclass(frozen=True)
class Lie:
    """What one site says in place of an honest reply.

    Attributes:
        kind: Of the message that it answers so.
        tell: Makes of the honest reply what it says.
        reason: A pattern of the reason for which it is left out; None where what it says counts for nothing, so that
            the model is that of an honest run.
        round: The first in which it lies; what is asked before round 1 is round 0's.
        also: What it says in answer to other kinds of message, so that it does not contradict itself.
    """

    kind: str
    tell: Tell
    reason: str | None
    round: int = 1
    also: Mapping[str, Tell] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        rows: ``rounds.jsonl``.
        events: ``events.jsonl``.
        report: ``run.json``.
        state: As it is read back.
        shown: What the operator's terminal got.
        peak_bytes: Most memory that the process, server and all sites, had at once.
    """

    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    report: dict[str, Any]
    state: RoundState
    shown: str
    peak_bytes: int

    @property
    def digests(self) -> list[str]:
        """Of the global model, by round."""
        return [row["digest"] for row in self.rows]

    def reasons(self) -> dict[str, list[str]]:
        """As :func:`reasons_in` its events."""
        return reasons_in(self.events)


@dataclass(frozen=True)
class Exchange:
    """What the server knows after it asked its sites for one thing.

    Attributes:
        told: In plain values, without what differs from time to time.
        liar: What of it is the liar's own.
        events: What was said of it.
    """

    told: dict[str, Any]
    liar: dict[str, Any]
    events: list[dict[str, Any]]

    def reasons(self) -> dict[str, list[str]]:
        """As :func:`reasons_in` its events."""
        return reasons_in(self.events)


def reasons_in(events: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Site to the reasons for which it was left out, or could not take part; in order."""
    told: dict[str, list[str]] = {}
    for event in events:
        if found := _LEFT_OUT.fullmatch(event["message"]):
            told.setdefault(event["site"], []).append(found["reason"])
    return told


class Remembered(ClientApp):
    """The real ClientApp, which answers the same message only once."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: dict[tuple[str, int, str], RecordDict] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        kind, partition = message.metadata.message_type, int(context.node_config["partition-id"])
        key = (kind, partition, _digest(message.content))
        if key not in self._answers:
            self._answers[key] = client_app(message, context).content
        return Message(copied(self._answers[key]), reply_to=message)


class Liar(ClientApp):
    """A site's ClientApp, mangled.

    Where the lie is invalid, the site says nothing more after it, so that the run must be that of a site that was away
    from then on.
    """

    def __init__(self, honest: ClientApp, lie: Lie | None) -> None:
        super().__init__()
        self._honest, self._lie = honest, lie
        self._told: tuple[str, int] | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        if self._lie is None or context.node_config["partition-id"] != SITES.index(LIAR):
            return self._honest(message, context)
        due = message.metadata.message_type == self._lie.kind and _round(message) >= self._lie.round
        if self._lie.reason is not None and self._told not in (None, (message.metadata.message_type, _round(message))):
            return Message(Error(GRID_CODE, AWAY), reply_to=message)
        reply = self._honest(message, context)
        if more := self._lie.also.get(message.metadata.message_type):
            reply = more(reply)
        if not due or protocol.LACKS in str(reply.content[HEADER]):
            return reply
        self._told = (message.metadata.message_type, _round(message))
        return self._lie.tell(reply)


class Present(InProcessGrid):
    """All nodes are there."""

    def present(self) -> set[int]:
        return set(self.get_node_ids())


@dataclass
class LyingFederation:
    """Runs of the same four sites, each with another lie in it.

    Attributes:
        root: The server's project, made anew by each run.
        prepared: The sites'.
        params: The run's.
        members: The sites, as the registry has them.
        answers: The real ClientApp.
    """

    root: Path
    prepared: Path
    params: Params
    members: list[Site]
    answers: ClientApp = field(default_factory=Remembered)
    _without: dict[tuple[str, int], Outcome] = field(default_factory=dict)

    @cached_property
    def honest(self) -> Outcome:
        """The run in which nobody lies; the second one, when everything is warm and what is answered is known."""
        self.run(None)
        return self.run(None)

    def without(self, kind: str, number: int) -> Outcome:
        """The run in which the site was away from that message on."""
        if (kind, number) not in self._without:
            self._without[kind, number] = self.run(Lie(kind, away, AWAY, number))
        return self._without[kind, number]

    def run(self, lie: Lie | None, **federation: Any) -> Outcome:
        """A whole run, from the roll call to the report; its files are read as any other program would."""
        for name in ("state", "results", "checkpoints"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        params = self.params.model_copy(update={"federation": self.params.federation.model_copy(update=federation)})
        grid = Present(Liar(self.answers, lie), self.prepared, len(SITES), LIMIT)
        roll = self._roll_of(grid, params)
        reset_peak()
        with redirect_stdout(StringIO()) as shown:
            run_federation(grid, self.root, params, BASE, print_event, gather=roll)
        peak, results = peak_bytes(), self.root / "results" / "federation"
        files = sorted(self.root.glob("state/*/round-*/state.json"))
        for file in files:
            strict(file)
        state = StateFolder(files[-1].parents[1]).load_last()
        assert state is not None
        rows, events = strict(results / "rounds.jsonl"), strict(results / "events.jsonl")
        return Outcome(rows, events, strict(results / "run.json")[0], state, shown.getvalue(), peak)

    def exchange(self, lie: Lie | None, kind: str) -> Exchange:
        """One thing that is asked of all sites, of which one lies: summaries, statistics, or a round."""
        events: list[dict[str, Any]] = []
        server = self._server(lie, events)
        if kind == protocol.SUMMARY:
            found = {one.site: one.content() for one in self._roll(server)(server)}
            return Exchange(found, found.get(LIAR, {}), events)
        server.serve(self._served)
        server.begin_round()
        if kind == protocol.STATISTICS:
            merged = server.merged_moments().to_tensors()
            return Exchange({name: tensor.tolist() for name, tensor in merged.items()}, {}, events)
        server.held = dict.fromkeys(server.sites, self._first.digest)
        row = run_round(server, self._first, self._first.moments().normalisation()).rounds[-1].content()
        measured = {"round_s", "aggregate_s", "cpu_s", "memory_bytes"}
        untimed = {key: value for key, value in row.items() if key not in {*measured, "left_out"}}
        return Exchange(untimed, row["sites"][LIAR], events)

    @cached_property
    def _served(self) -> dict[int, tuple[int, Manifest]]:
        server = self._server(None, [])
        return {place: (place + 1, one) for place, one in enumerate(self._roll(server)(server))}

    @cached_property
    def _first(self) -> RoundState:
        server = self._server(None, [])
        server.serve(self._served)
        return first_state(server, warm_start(self.root, self.params, BASE[0]).first)

    def _server(self, lie: Lie | None, events: list[dict[str, Any]]) -> Server:
        grid = Present(Liar(self.answers, lie), self.prepared, len(SITES), LIMIT)
        (self.root / "exchanges.jsonl").unlink(missing_ok=True)
        journal = Journal(self.root / "exchanges.jsonl", lambda event: events.append(event.model_dump()))
        return Server(grid, self.params, "exchange", BASE, journal, self.root / "waiting")

    def _roll(self, server: Server) -> RollCall:
        (self.root / "state" / "network.json").unlink(missing_ok=True)
        return self._roll_of(cast(Present, server.grid), self.params)

    def _roll_of(self, grid: Present, params: Params) -> RollCall:
        """As the ServerApp of a network has it."""
        start = warm_start(self.root, params, BASE[0]).start
        fitting = partial(misfits, loaded=start, missing=params.data.missing_cameras)
        return RollCall(self.root, params, BASE[1], self.members, grid, 0.0, len(SITES) - 1, fitting)


def strict(path: Path) -> list[Any]:
    """A file's JSON values as any other program would read them: UTF-8, no NaN, no half of a character."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path} holds {name}, which is not JSON")

    text = path.read_bytes().decode("utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    values = [json.loads(line, parse_constant=refuse) for line in lines]
    json.dumps(values, ensure_ascii=False).encode("utf-8")
    return values


def lying_federation(prepared: Path, root: Path, params: Params) -> LyingFederation:
    """Four sites of a prepared project that has their manifests."""
    registry = SiteRegistry.create(root / "sites.json", "arms")
    for node, name in enumerate(SITES, 1):
        registry.admit(name, NodeKey.create(root / "keys" / name).public)
        registry.registered(name, node)
    return LyingFederation(root, prepared, params, members_of(registry.sites(), []))


def beside(params: Params, folders: dict[int, Path], silent: Set[tuple[str, int, int]], workspace: Path) -> Server:
    """A server in this process that has met sites whose data is in these folders, by partition.

    Args:
        params: The run's.
        folders: The sites'.
        silent: Kind, round and partition of messages that get no reply.
        workspace: An empty folder.
    """

    def answer(message: Message, context: Context) -> Message:
        kind, partition = message.metadata.message_type, int(context.node_config["partition-id"])
        reply = client_app(message, context)
        return away(reply) if (kind, _round(message), partition) in silent else reply

    grid = InProcessGrid(app_of(answer), workspace, len(folders), LIMIT)
    for partition, folder in folders.items():
        grid._contexts[partition + 1].node_config["project"] = str(folder)
    server = Server(grid, params, "beside", BASE, Journal(workspace / "events.jsonl"), workspace)
    meet(server)
    return server


def away(reply: Message) -> Message:
    """The SuperLink's answer in the stead of a node that is gone."""
    return failed(AWAY, GRID_CODE)(reply)


def failed(text: str, code: int = ERROR_CODE) -> Tell:
    """An error in place of a reply."""

    def tell(reply: Message) -> Message:
        asked = Message(RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type)
        vars(asked.metadata)["_message_id"] = reply.metadata.reply_to_message_id
        return Message(Error(code, text), reply_to=asked)

    return tell


def copied(content: RecordDict) -> RecordDict:
    """A content that may be mangled while the other stays as it is; the bytes are shared."""
    result = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = ArrayRecord()
            for key, array in record.items():
                arrays[key] = array_of(array.dtype, array.shape, array.data)
            result[name] = arrays
        else:
            result[name] = type(record)(dict(record))
    return result


def array_of(dtype: Any, shape: Any, data: Any) -> Array:
    """An array that may declare whatever it likes."""
    array = Array("", (), "zk0", b"")
    array.dtype, array.shape, array.data = dtype, shape, data
    return array


def _round(message: Message) -> int:
    return int(json.loads(str(message.content[HEADER]["json"]))["round"])


def _digest(content: RecordDict) -> str:
    parts: dict[str, Any] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            parts |= {f"{name}/{key}": array.data for key, array in record.items()}
        else:
            parts[name] = repr(dict(record)).encode()
    return digest_parts(parts)
