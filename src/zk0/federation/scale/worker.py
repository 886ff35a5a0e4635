"""A worker of the Ray engine: the in-process engine in a process of its own, for the sites it is asked for.

What a Flower message holds travels as plain values and NumPy arrays: Ray lays arrays into memory that all processes
of a machine read, so a model is there once, and nothing is copied to be read.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from zk0 import runtime_env
from zk0.federation.client_app import noted
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.protocol import EVALUATE, TRAIN, SiteTask, error_reply, read
from zk0.federation.scale.mirror import NODE, Mirror, home
from zk0.federation.site import site_at
from zk0.machine.packages import versions
from zk0.records.journal import Journal
from zk0.records.run import Event

# Name, form, shape and bytes of each array of a record; or a record of plain values.
Arrays = list[tuple[str, str, tuple[int, ...], str, np.ndarray]]
Packed = Arrays | dict[str, Any]

ALONE = -1  # the number of a record that one site alone is sent


def pack(record: ArrayRecord | ConfigRecord | MetricRecord) -> Packed:
    """A record as Ray takes it, its arrays without a copy."""
    if not isinstance(record, ArrayRecord):
        return dict(record)
    return [(n, a.dtype, tuple(a.shape), a.stype, np.frombuffer(a.data, np.uint8)) for n, a in record.items()]


def unpack(packed: Packed) -> ArrayRecord | ConfigRecord:
    """Undo :func:`pack`, without a copy."""
    if isinstance(packed, dict):
        return ConfigRecord(packed)
    record = ArrayRecord()
    for name, form, shape, stype, content in packed:
        array = Array(form, shape, stype, b"")
        array.data = memoryview(content)  # type: ignore[assignment]  # any buffer of bytes will do
        record[name] = array
    return record


@dataclass(frozen=True)
class Project:
    """What a worker needs to know of the run.

    Attributes:
        root: Project folder.
        partitions: How many sites.
        decoded_limit_bytes: As in params; of one worker's sites together.
        threads, processes: As in params.
        app: Makes the ClientApp.
        token: A file on the project's disk, by which a worker sees whether it has that disk, too.
        library: Gives out what is on that disk; None where all workers are on this machine.
    """

    root: Path
    partitions: int
    decoded_limit_bytes: int
    threads: int
    processes: int
    app: Callable[[], ClientApp]
    token: Path | None = None
    library: Any = None


@dataclass(frozen=True)
class Asked:
    """Of a message what is not in its records.

    Attributes:
        kind, node, group: Type, the site's node, and group.
        numbers: By the records' names, ``ALONE`` of those that no other site is sent.
        since: Records with lower numbers will not come again.
    """

    kind: str
    node: int
    group: str
    numbers: dict[str, int]
    since: int


@dataclass(frozen=True)
class Told:
    """Of a reply what is small, and is known before its tensors are wanted.

    Attributes:
        error: Code and reason of an error reply; None of a good one.
        names: Its records.
        events: For the run's journal.
        lines: What was printed meanwhile, with the site's name.
    """

    error: tuple[int, str] | None
    names: tuple[str, ...]
    events: tuple[Event, ...]
    lines: tuple[str, ...]


class Worker:
    """An actor: it has one policy, and keeps the data of its sites at hand.

    Args:
        project: The run's.
    """

    def __init__(self, project: Project) -> None:
        runtime_env.switch_off()
        torch.set_num_threads(project.threads)
        self._events: list[Event] = []
        self._known: dict[int, ArrayRecord | ConfigRecord] = {}
        app = noted(project.app(), Journal(Path(os.devnull), self._events.append))
        shares = project.token is None or (project.token.is_file() and NODE not in os.environ)
        self._mirror = None if shares else Mirror(project.library, home())
        root = self._mirror.root if self._mirror else project.root
        self._grid = InProcessGrid(app, root, project.partitions, project.decoded_limit_bytes, project.processes)

    def present(self) -> tuple[str, int, dict[str, str]]:
        """Machine, process, and versions of what decides numbers; once it answers, the worker is up."""
        return ray.util.get_node_ip_address(), os.getpid(), versions()

    def answer(self, asked: Asked, *records: Packed | None) -> tuple[Told, list[Packed]]:
        """A site's reply to a message.

        Args:
            asked: What there is to know of the message.
            records: As :func:`pack` makes them; None for one that came before, with another site's message.

        Returns:
            What there is to know of the reply, and its records.
        """
        content, node = self._unpacked(asked, records), asked.node
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            reply = self._reply(Message(content, node, asked.kind, group_id=asked.group))
        events, lines = tuple(self._events), tuple(f"{self._name(node)}: {line}" for line in _lines(printed))
        self._events.clear()
        if reply.has_error():
            return Told((reply.error.code, str(reply.error.reason)), (), events, lines), []
        return Told(None, tuple(reply.content), events, lines), [pack(record) for record in reply.content.values()]

    def _unpacked(self, asked: Asked, records: Sequence[Packed | None]) -> RecordDict:
        """The message's records; those that other sites are sent, too, are kept for them."""
        self._known = {number: record for number, record in self._known.items() if number >= asked.since}
        content = RecordDict()
        for (name, number), packed in zip(asked.numbers.items(), records, strict=True):
            if packed is not None:
                self._known[number] = unpack(packed)
            content[name] = self._known[number]
        return content

    def _reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        around: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        try:
            if self._mirror is not None:
                kind = message.metadata.message_type
                task = read(message.content, SiteTask)[0] if kind in (TRAIN, EVALUATE) else None
                self._grid.config(node).update(self._mirror.config(node - 1, task))
                around = self._mirror.memory(task, trains=kind == TRAIN) if task else around
            with around:
                (reply,) = self._grid.send_and_receive([message])
                return reply
        except Exception as error:  # of the mirror: what goes wrong at the site is a reply already
            return error_reply(message, error)

    def _name(self, node: int) -> str:
        try:
            return site_at(self._grid.config(node)).manifest.site
        except Exception:  # it is what its reply tells
            return f"site {node - 1}"


def _lines(printed: io.StringIO) -> list[str]:
    return [line.rstrip() for line in printed.getvalue().splitlines() if line.strip()]
