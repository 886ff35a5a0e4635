"""The server's side of a federation: ask the sites, average, remember, go on.

A round is a pure function of the state and the replies (:func:`next_state`); everything else here
is about getting replies and about what to do when they do not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from zk0.errors import StageError
from zk0.federation import protocol, wire
from zk0.federation.aggregation import Aggregator
from zk0.federation.client_app import pack_stats
from zk0.federation.journal import Journal
from zk0.federation.state import RoundState, StateFolder
from zk0.federation.statistics import Moments, merge_all
from zk0.params import Params
from zk0.policy.checkpoint import Stats
from zk0.policy.trainable import TensorMismatch, Tensors, check_alike, check_finite, digest_tensors


class FederationError(StageError):
    """A round could not be completed; what was complete is saved and can be resumed."""


@dataclass(frozen=True)
class Reply:
    """A site's answer that passed all checks."""

    site: str
    partition: int
    values: dict[str, Any]
    content: RecordDict
    bytes_up: int
    bytes_down: int


def in_order(messages: Iterable[Message], nodes: Sequence[int]) -> Iterator[Message]:
    """One reply per node, in the nodes' order: who comes early waits.

    Floating-point sums depend on the order, and so results would on who is fastest. Repeated and
    unasked-for replies are dropped.
    """
    waiting: dict[int, Message] = {}
    heard: set[int] = set()
    turn = 0
    for message in messages:
        node = message.metadata.src_node_id
        if node in heard or node not in nodes:
            continue
        heard.add(node)
        waiting[node] = message
        while turn < len(nodes) and nodes[turn] in waiting:
            yield waiting.pop(nodes[turn])
            turn += 1
    yield from (waiting[node] for node in nodes[turn:] if node in waiting)


@dataclass
class Server:
    """Speaks to the sites of one run.

    Attributes:
        grid: Flower's, or the in-process one.
        params: The run's.
        run: Config digest; every message and reply carries it.
        base: Starting policy and its digest.
        journal: Where events go.
    """

    grid: Grid
    params: Params
    run: str
    base: tuple[str, str]
    journal: Journal

    def __post_init__(self) -> None:
        self.nodes = list(self.grid.get_node_ids())
        self.sites: dict[int, str] = {}

    # -- asking --------------------------------------------------------------------------------

    def meet(self) -> list[dict[str, Any]]:
        """Learn which site each node serves: the sites' manifests, in partition order."""
        found = {}
        for node in self.nodes:
            header = protocol.Header(run=self.run, round=0, partition=0)
            content = RecordDict()
            protocol.write(content, header)
            for message in self.grid.send_and_receive([Message(content, node, protocol.SUMMARY, group_id="0")]):
                if message.has_error():
                    raise FederationError(f"node {node} has no data to train on: {message.error.reason}")
                _, values = protocol.read(message.content)
                found[values["manifest"]["partition"]] = (node, values["manifest"])
        if sorted(found) != list(range(len(self.nodes))):
            raise FederationError(
                f"{len(self.nodes)} nodes serve partitions {', '.join(map(str, sorted(found)))}; expected one node for "
                f"each of 0 to {len(self.nodes) - 1}"
            )
        ordered = [found[partition] for partition in sorted(found)]
        self.nodes = [node for node, _ in ordered]
        self.sites = {manifest["partition"]: manifest["site"] for _, manifest in ordered}
        return [manifest for _, manifest in ordered]

    def merged_moments(self) -> Moments:
        """Ask every site for its moments and merge them in partition order.

        Raises:
            FederationError: A site does not answer well; normalisation needs all. Names site and reason.
        """
        moments = []
        for reply in self._ask(protocol.STATISTICS, 0, lambda header: (header, {})):
            try:
                moments.append(Moments.from_tensors(wire.unpack(reply.content, protocol.MOMENTS)))
            except ValueError as error:
                self._leave_out(reply.site, 0, str(error))
        if len(moments) < len(self.nodes):
            raise FederationError(
                "not every site sent its statistics and the common normalisation needs all of them. Left out: "
                f"{self._reasons()}"
            )
        return merge_all(moments)

    def task(self, header: protocol.Header, **changes: Any) -> protocol.SiteTask:
        """The task for one site in one round."""
        params = self.params
        settings: dict[str, Any] = {
            **header.model_dump(),
            "seed": params.seed,
            "base": self.base[0],
            "base_digest": self.base[1],
            "device": params.policy.device,
            "training": params.training,
            "decay_steps": params.decay_steps,
            "proximal_mu": params.federation.proximal_mu,
            "evaluation": params.evaluation,
        }
        return protocol.SiteTask(**(settings | changes))

    def ask_with_model(
        self, kind: str, number: int, tensors: Tensors, stats: Stats | None, **values: Any
    ) -> Iterator[Reply]:
        """Send tensors to every site; yield the good replies in partition order.

        ``stats`` None lets the base's own normalisation stand, for judging the base itself.
        Further values ask for a detailed evaluation.
        """
        groups = {protocol.GLOBAL: tensors}
        if stats is not None:
            groups[protocol.STATS] = pack_stats(stats)
        changes = {"own_stats": stats is None, "detailed": bool(values)}
        return self._ask(kind, number, lambda header: (self.task(header, **changes), groups), **values)

    def _ask(
        self,
        kind: str,
        number: int,
        build: Callable[[protocol.Header], tuple[protocol.Header, dict[str, Tensors]]],
        **values: Any,
    ) -> Iterator[Reply]:
        messages, expected = [], {}
        for partition, node in enumerate(self.nodes):
            header, groups = build(protocol.Header(run=self.run, round=number, partition=partition))
            content = RecordDict()
            protocol.write(content, header, **values)
            for name, tensors in groups.items():
                wire.pack(content, name, tensors)
            messages.append(Message(content, node, kind, group_id=str(number)))
            expected[node] = (header, wire.payload_bytes(content))
        answers = self.grid.send_and_receive(messages, timeout=self.params.federation.timeout_s)
        for message in in_order(answers, self.nodes):
            header, bytes_down = expected.pop(message.metadata.src_node_id)
            site = self.sites[header.partition]
            try:
                reply = self._checked(message, header, site, bytes_down)
                protocol.check_values(kind, reply.values)
            except (wire.WireError, TensorMismatch, FederationError) as error:
                self._leave_out(site, number, str(error))
                continue
            yield reply
        for header, _ in expected.values():
            self._leave_out(
                self.sites[header.partition], number, f"no reply within {self.params.federation.timeout_s} s"
            )

    def _checked(self, message: Message, header: protocol.Header, site: str, bytes_down: int) -> Reply:
        if message.has_error():
            raise FederationError(f"the site failed: {message.error.reason}")
        answered, values = protocol.read(message.content)
        protocol.check_reply(answered, header)
        return Reply(site, header.partition, values, message.content, wire.payload_bytes(message.content), bytes_down)

    def _leave_out(self, site: str, number: int, reason: str) -> None:
        self.left_out[site] = reason
        self.journal.say("site-left-out", f"{site} is left out: {reason}", round=number, site=site)

    def _reasons(self) -> str:
        return "; ".join(f"{site}: {reason}" for site, reason in self.left_out.items())

    # -- rounds --------------------------------------------------------------------------------

    def begin_round(self) -> None:
        """Forget whom the last round left out."""
        self.left_out: dict[str, str] = {}

    def enough(self, good: int, number: int, what: str) -> None:
        """Raise unless enough sites answered well."""
        needed = self.params.federation.min_replies * len(self.nodes)
        if good < needed or not good:
            raise FederationError(
                f"round {number}: {good} of {len(self.nodes)} sites {what} well and federation.min_replies asks for "
                f"{self.params.federation.min_replies:g}. Left out: {self._reasons()}. Complete rounds are saved; "
                "mend the sites and run `zk0 federate` again to go on"
            )


@dataclass(frozen=True)
class SiteUpdate:
    """What a round keeps of a training reply besides the update itself."""

    site: str
    weight: float
    record: dict[str, Any]


def next_state(state: RoundState, aggregated: Tensors, row: dict[str, Any]) -> RoundState:
    """The state after a round: new tensors, one more row."""
    return replace(state, round=state.round + 1, tensors=aggregated, rows=(*state.rows, row))


def train_round(server: Server, state: RoundState, stats: Stats) -> tuple[Tensors, list[SiteUpdate], float]:
    """Have the sites train and average what they send, one reply at a time.

    Returns:
        The new global tensors, the sites' records, and the seconds spent averaging.
    """
    number, journal = state.round + 1, server.journal
    aggregator = Aggregator(state.tensors)
    updates: list[SiteUpdate] = []
    spent = 0.0
    for reply in server.ask_with_model(protocol.TRAIN, number, state.tensors, stats):
        began = time.perf_counter()
        values = reply.values
        weight = float(values["examples"]) if server.params.federation.weighting == "examples" else 1.0
        try:
            delta = wire.unpack(reply.content, protocol.DELTA)
            check_alike(delta, state.tensors)
            check_finite(delta)
            aggregator.fold(delta, weight)
        except (wire.WireError, TensorMismatch, ValueError) as error:
            server._leave_out(reply.site, number, f"its update is refused: {error}")
            continue
        record = {k: values[k] for k in ("examples", "train_loss", "update_norm", "train_s", "learning_rate")}
        updates.append(
            SiteUpdate(reply.site, weight, record | {"bytes_up": reply.bytes_up, "bytes_down": reply.bytes_down})
        )
        journal.say("train", f"{reply.site} trained, loss {values['train_loss']:.4f}", round=number, site=reply.site)
        spent += time.perf_counter() - began
    server.enough(len(updates), number, "trained")
    began = time.perf_counter()
    tensors = aggregator.finish()
    spent += time.perf_counter() - began
    journal.say("aggregate", f"averaged {len(updates)} updates", round=number, seconds=spent)
    return tensors, updates, spent


def evaluate_round(
    server: Server, tensors: Tensors, stats: Stats, number: int
) -> tuple[float, dict[str, dict[str, Any]]]:
    """Held-out loss of a model: the mean over sites weighted by frames, and each site's."""
    sites, total, frames = {}, 0.0, 0
    for reply in server.ask_with_model(protocol.EVALUATE, number, tensors, stats):
        loss = float(reply.values["held_out_loss"])
        sites[reply.site] = {"held_out_loss": loss, "evaluate_s": reply.values["evaluate_s"]}
        total += loss * reply.values["frames"]
        frames += reply.values["frames"]
    server.enough(len(sites), number, "evaluated")
    mean = total / frames
    server.journal.say("evaluate", f"held-out loss {mean:.4f}", round=number, held_out_loss=mean)
    return mean, sites


def run_round(server: Server, state: RoundState, stats: Stats) -> RoundState:
    """One round: train, average, evaluate."""
    number, began = state.round + 1, time.perf_counter()
    server.begin_round()
    server.journal.say("round-start", f"round {number} of {server.params.federation.rounds}", round=number)
    tensors, updates, aggregate_s = train_round(server, state, stats)
    loss, evaluated = evaluate_round(server, tensors, stats, number)
    weight = sum(update.weight for update in updates)
    row = {
        "round": number,
        "train_loss": sum(u.record["train_loss"] * u.weight for u in updates) / weight,
        "held_out_loss": loss,
        "learning_rate": updates[0].record["learning_rate"],
        "bytes_up": sum(u.record["bytes_up"] for u in updates),
        "bytes_down": sum(u.record["bytes_down"] for u in updates),
        "round_s": time.perf_counter() - began,
        "aggregate_s": aggregate_s,
        "save_s": None,
        "digest": digest_tensors(tensors),
        "left_out": dict(server.left_out),
        "sites": {u.site: u.record | evaluated.get(u.site, {}) for u in updates},
    }
    return next_state(state, tensors, row)


def first_state(server: Server, tensors: Tensors) -> RoundState:
    """Round 0: common normalisation, and the starting model's held-out loss."""
    server.begin_round()
    moments = server.merged_moments()
    loss, evaluated = evaluate_round(server, tensors, moments.normalisation(), 0)
    row = {
        "round": 0,
        "train_loss": None,
        "held_out_loss": loss,
        "learning_rate": None,
        "bytes_up": 0,
        "bytes_down": 0,
        "round_s": None,
        "aggregate_s": None,
        "save_s": None,
        "digest": digest_tensors(tensors),
        "left_out": {},
        "sites": evaluated,
    }
    stats = {name: tensor.tolist() for name, tensor in moments.to_tensors().items()}
    return RoundState(0, tensors, (row,), stats)


def moments_in(state: RoundState) -> Moments:
    """The merged moments a state remembers."""
    return Moments(**{name: np.asarray(value, dtype=np.float64) for name, value in state.stats.items()})


def run_rounds(server: Server, states: StateFolder, start: Tensors, after: Callable[[RoundState], None]) -> RoundState:
    """Run all rounds that are still to do, saving after each.

    Args:
        server: Speaks to the sites.
        states: Where rounds are kept; continued if it holds any.
        start: The starting policy's trainable tensors.
        after: Called with every new state once it is saved.

    Returns:
        The state after the last round.
    """
    state = states.load_last()
    if state is None:
        state = first_state(server, start)
        states.save(state)
    else:
        server.journal.say("resume", f"continuing after round {state.round}", round=state.round)
    after(state)
    stats = moments_in(state).normalisation()
    while state.round < server.params.federation.rounds:
        state = run_round(server, state, stats)
        began = time.perf_counter()
        states.save(state)
        server.journal.say("save", f"round {state.round} saved", round=state.round, seconds=time.perf_counter() - began)
        after(state)
    return state


def rows_with_best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the rounds that were the best so far."""
    marked, best = [], float("inf")
    for row in rows:
        is_best = row["round"] > 0 and row["held_out_loss"] < best
        best = row["held_out_loss"] if is_best else best
        marked.append({**row, "is_best": is_best})
    return marked
