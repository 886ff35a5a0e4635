"""Sites whose replies may be spoilt on their way out, over real messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.federation import protocol, wire
from zk0.federation.aggregation import StreamingMean
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.plan import plan_round
from zk0.federation.rounds import SiteUpdate, train
from zk0.federation.server import Server
from zk0.federation.state import RoundState, Saver
from zk0.files import read_json, write_json
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import Tensors, digest_tensors

BASE = ("random:nano", "digest")
LIMIT = 10**9
Spoil = Callable[[RecordDict], Any]
MakeServer = Callable[..., Server]


def copy_project(prepared: Path, root: Path) -> Path:
    """A project of its own with the prepared manifests; their recordings are read where they are."""
    for manifest in (prepared / "data" / "manifests").iterdir():
        write_json(root / "data" / "manifests" / manifest.name, read_json(manifest))
    return root


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
    "shape": (delta(lambda t, n: t.update({n: t[n][None]})), "has shape [1, "),
    "type": (delta(lambda t, n: t.update({n: t[n].double()})), "is encoded as 'torch.float64', expected 'fp32'"),
    "missing": (delta(lambda t, n: t.pop(n)), "is missing (1 of 47 are)"),
    "unknown": (delta(lambda t, n: t.update(more=t[n])), "tensor 'more' was not asked for"),
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
    "no-examples": (values(examples=None), "the reply's examples is missing"),
    "no-weight": (values(examples=0), "the reply's examples is 0: expected greater than or equal to 1"),
    "more-weight": (values(examples=3), "its update is refused: examples is 3, but 2 were asked for"),
    "all-weight": (values(examples=float("inf")), "the reply's examples is inf: expected a valid integer"),
    "nan-loss": (values(train_loss=float("nan")), "the reply's train_loss is nan: expected a finite number"),
    "crash": (crash, 'the site failed: cubes-1 says: "OSError: the disk is full"'),
}


def averaged(start: Tensors, *folded: tuple[Tensors, float]) -> str:
    """Digest of the mean of these updates."""
    mean = StreamingMean(start)
    for update, weight in folded:
        mean.fold(update, weight)
    return digest_tensors(mean.finish())


def ask(grid: InProcessGrid, node: int, kind: str) -> Message:
    content = RecordDict()
    protocol.write(content, protocol.Header(run="test", round=0, partition=node - 1))
    (reply,) = grid.send_and_receive([Message(content, node, kind, group_id="0")])
    return reply


def train_round(
    server: Server, state: RoundState, stats: Stats, saver: Saver | None = None
) -> tuple[Tensors, list[SiteUpdate], float]:
    """The round after a state, up to its combined update."""
    return train(server, state, stats, plan_round(server.params, state.rounds, list(server.sites)), saver)
