"""A federation of four, of which one may lie: real sites and messages, on the in-process engine.

What an honest site answers depends on the message alone, so it is worked out once and remembered: a run with another
lie in it takes the server's own work, and no training.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federated_sites import BASE, LIMIT
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.deployment.roll_call import RollCall, members_of
from zk0.deployment.security.keys import NodeKey
from zk0.deployment.site_list import Site
from zk0.deployment.sites import SiteRegistry
from zk0.federation import protocol
from zk0.federation.client_app import app as client_app
from zk0.federation.failed import ERROR_CODE
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.journal import read_lines
from zk0.federation.run import run_federation
from zk0.federation.state import RoundState, StateFolder
from zk0.files import digest_parts
from zk0.params import Params

SITES = ("lab", "kitchen", "garage", "attic")
LIAR = "lab"  # the first: whatever is taken from the first site is taken from it
LONGEST_REASON = 300
AWAY = "its node is away"

Tell = Callable[[Message], Message]


@dataclass(frozen=True)
class Lie:
    """What one site says in place of an honest reply.

    Attributes:
        kind: Of the message that it answers so.
        tell: Makes of the honest reply what it says.
        reason: What must be in the reason for which it is left out; None where it says nothing that is invalid.
        round: The first in which it lies.
    """

    kind: str
    tell: Tell
    reason: str | None
    round: int = 1

    @property
    def first_round(self) -> int:
        """Summaries and statistics are asked for before round 1."""
        return 0 if self.kind in (protocol.SUMMARY, protocol.STATISTICS) else self.round


@dataclass(frozen=True)
class Outcome:
    """What a run with a lie in it left behind.

    Attributes:
        rows: ``rounds.jsonl``.
        events: ``events.jsonl``.
        report: ``run.json``.
        state: As it is read back.
        peak_bytes: Most memory that the process, server and all sites, had at once.
    """

    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    report: dict[str, Any]
    state: RoundState
    peak_bytes: int

    def reasons(self) -> dict[str, list[str]]:
        """Site to the reasons for which it was left out, or could not take part; in order."""
        told: dict[str, list[str]] = {}
        for event in self.events:
            if event["event"] == "site-left-out":
                told.setdefault(event["site"], []).append(event["message"])
            elif event["event"] == "roll-call" and not event["message"].endswith(" is there"):
                told.setdefault(event["site"], []).append(event["message"])
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
        self._honest, self._lie, self._told = honest, lie, False

    def __call__(self, message: Message, context: Context) -> Message:
        if self._lie is None or context.node_config["partition-id"] != SITES.index(LIAR):
            return self._honest(message, context)
        if self._told and self._lie.reason is not None:
            return away(message)
        due = message.metadata.message_type == self._lie.kind and _round(message) >= self._lie.first_round
        reply = self._honest(message, context)
        if not due or protocol.LACKS in str(reply.content[protocol.HEADER]):
            return reply
        self._told = True
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
    """

    root: Path
    prepared: Path
    params: Params
    members: list[Site]
    honest: ClientApp = field(default_factory=Remembered)

    def run(self, lie: Lie | None, **federation: Any) -> Outcome:
        """A whole run, from the roll call to the report."""
        for name in ("state", "results", "checkpoints"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        params = self.params.model_copy(
            update={"federation": self.params.federation.model_copy(update=federation)} if federation else {}
        )
        grid = Present(Liar(self.honest, lie), self.prepared, len(SITES), LIMIT)
        roll = RollCall(self.root, params, BASE[1], self.members, grid, 0.0, least=len(SITES) - 1)
        forget_peak()
        report = run_federation(grid, self.root, params, BASE, gather=roll)
        peak, results = peak_bytes(), self.root / "results" / "federation"
        assert strict(results / "run.json")[0]["run"] == report["run"]
        last = max(self.root.glob("state/*/round-*/state.json"))
        strict(last)
        state = StateFolder(last.parents[1]).load_last()
        assert state is not None
        strict(results / "events.jsonl")
        return Outcome(strict(results / "rounds.jsonl"), read_lines(results / "events.jsonl"), report, state, peak)


def strict(path: Path) -> list[Any]:
    """A file's JSON values as any other program would read them: UTF-8, no NaN, no half of a character."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path} holds {name}, which is not JSON")

    text = path.read_bytes().decode("utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    values = [json.loads(line, parse_constant=refuse) for line in lines]
    json.dumps(values, ensure_ascii=False).encode("utf-8")
    return values


def forget_peak() -> None:
    """Count this process's most memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most memory that this process had since :func:`forget_peak`."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


@contextmanager
def lying_federation(prepared: Path, root: Path, params: Params) -> Iterator[LyingFederation]:
    """Four sites of a prepared project that has their manifests."""
    registry = SiteRegistry.create(root / "sites.json", "arms")
    for node, name in enumerate(SITES, 1):
        registry.admit(name, NodeKey.create(root / "keys" / name).public)
        registry.registered(name, node)
    yield LyingFederation(root, prepared, params, members_of(registry.sites(), []))


def away(message: Message) -> Message:
    """The SuperLink's answer in the stead of a node that is gone."""
    return Message(Error(ERROR_CODE, AWAY), reply_to=message)


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
    return int(json.loads(str(message.content[protocol.HEADER]["json"]))["round"])


def _digest(content: RecordDict) -> str:
    parts: dict[str, Any] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            parts |= {f"{name}/{key}": array.data for key, array in record.items()}
        else:
            parts[name] = repr(dict(record)).encode()
    return digest_parts(parts)
