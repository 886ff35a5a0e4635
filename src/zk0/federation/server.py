"""The server's side of a federation: ask the sites, check what they answer, leave out what is not sound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.federation import answers, protocol, wire
from zk0.federation.aggregation import Aggregator
from zk0.federation.agreement import agree
from zk0.federation.answers import Reply
from zk0.federation.broadcast import Model
from zk0.federation.privacy.central import CentralPrivacy, Remembered
from zk0.federation.state import RoundState
from zk0.federation.statistics import Moments, pack_stats
from zk0.federation.strategy import make_aggregator
from zk0.federation.update_buffer import in_order
from zk0.params import Params, PrivacyParams
from zk0.policy.checkpoint import Stats
from zk0.records.journal import Journal
from zk0.words import printable

_log = logging.getLogger(__name__)


class FederationError(StageError):
    """A round could not be completed; what was complete is saved and can be resumed."""


@dataclass(frozen=True)
class _Question:
    """What sites are asked alike; the arguments of :meth:`Server.ask`, with the statistics as they travel."""

    kind: str
    number: int
    model: Model | None
    stats: ArrayRecord | None
    own: Callable[[int], Mapping[str, float]]


@dataclass
class Server:
    """Speaks to the sites of one run.

    Attributes:
        grid: Flower's, or the in-process one.
        params: The run's.
        run: Config digest; every message and reply carries it.
        base: Starting policy and its digest.
        journal: Where events go.
        workspace: A folder for replies that wait; what is in it is of no use later.
        held: Partition to the digest of the model its site is believed to hold. A site that does
            not says so, and gets all of it.
        left_out: Site to the reason why it is left out of the round.
        bounded: Site to what of its numbers counts as less than it told in the round, see :mod:`.agreement`.
        public: Moments to normalise by where no site is to be asked for its own.
        privacy: Where the run's privacy is central; nothing trains or is judged without it then.
    """

    grid: Grid
    params: Params
    run: str
    base: tuple[str, str]
    journal: Journal
    workspace: Path
    held: dict[int, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    bounded: dict[str, str] = field(default_factory=dict)
    public: Moments | None = None
    privacy: CentralPrivacy | None = None

    def __post_init__(self) -> None:
        self.nodes: dict[int, int] = {}
        self.sites: dict[int, str] = {}
        self.manifests: dict[int, Manifest] = {}

    def serve(self, roll: dict[int, tuple[int, Manifest]]) -> list[Manifest]:
        """Take sites into the run: by partition, node and manifest.

        Returns:
            The manifests, in partition order.
        """
        ordered = sorted(roll.items())
        self.nodes = {partition: node for partition, (node, _) in ordered}
        self.manifests = {partition: manifest for partition, (_, manifest) in ordered}
        self.sites = {partition: manifest.site for partition, manifest in self.manifests.items()}
        return list(self.manifests.values())

    def merged_moments(self) -> Moments:
        """Ask every site for its moments and merge them in partition order; under privacy, the public ones.

        Raises:
            FederationError: Too few sites answer well. Names them and their reasons.
        """
        if self.params.privacy.mode != "off":
            if self.public is None:
                raise FederationError(
                    f"privacy.mode {self.params.privacy.mode} needs a normalisation that no site is asked for; give "
                    "the server one"
                )
            return self.public
        told = {}
        for reply in self.ask(protocol.STATISTICS, 0):
            try:
                moments = Moments.from_tensors(wire.unpack(reply.content, protocol.MOMENTS))
                moments.check(self.manifests[reply.partition].train_frames)
                told[reply.site] = moments
            except ValueError as error:
                self.leave_out(reply.site, 0, f"its statistics are refused: {error}")
        self.enough(len(told), 0, "sent statistics")
        agreed = agree(told, self.params.data.fps)
        for site, why in agreed.bounded.items():
            self.bound(site, 0, f"its statistics differ from all others': {why}")
        return agreed.moments

    def task(self, header: protocol.Header, **changes: Any) -> protocol.SiteTask:
        """The task for one site in one round."""
        params = self.params
        settings = {
            **header.model_dump(),
            "seed": params.seed,
            "base": self.base[0],
            "base_digest": self.base[1],
            "device": params.policy.device,
            "adapters": protocol.Adapters(rank=params.policy.lora_rank, alpha=params.policy.lora_alpha),
            "features": params.features,
            "training": params.training,
            "decay_steps": params.decay_steps,
            "proximal_mu": params.federation.proximal_mu,
            "evaluation": params.evaluation,
            "uplink": params.federation.uplink,
            "local": params.federation.local,
            "privacy": params.privacy if params.privacy.mode == "site" else PrivacyParams(),
        }
        return protocol.SiteTask.model_validate(settings | changes)

    def ask(
        self,
        kind: str,
        number: int,
        model: Model | None = None,
        stats: Stats | None = None,
        own: Callable[[int], Mapping[str, float]] = lambda _: {},
        partitions: Sequence[int] | None = None,
    ) -> Iterator[Reply]:
        """Ask sites, and send them what they lack of a model; yield the good replies in partition order.

        Whose reply is not good, or does not come in time, is left out. A site that tells that it lacks the model it was
        thought to hold is sent all of it, once.

        Args:
            kind: Of the message: statistics, train or evaluate.
            number: The round.
            model: What to train from or to judge; None where no model is spoken of.
            stats: The common normalisation; goes with a model.
            own: What differs of a partition's task from :meth:`task`, such as ``used`` and ``keep``.
            partitions: Which sites, in order; None for all.
        """
        packed = None if stats is None else wire.encode(pack_stats(stats))
        question = _Question(kind, number, model, packed, own)
        timeout = self.params.federation.timeout_s
        asked = list(self.nodes) if partitions is None else partitions
        sent = dict[int, int]()
        silent = {self.nodes[partition]: partition for partition in asked}

        def messages() -> Iterator[Message]:
            for partition in asked:  # made as the Grid takes them: not every engine needs all at once
                message, sent[partition] = self._message(question, partition, self.held.get(partition))
                yield message

        arrived = self.grid.send_and_receive(messages(), timeout=timeout)
        for answer in in_order(arrived, list(silent), self.workspace):
            partition = silent.pop(answer.metadata.src_node_id)
            try:
                reply = self._parsed(question, partition, answer, sent[partition])
                if protocol.LACKS in reply.values:
                    again, more = self._message(question, partition, None)
                    reply = self._parsed(question, partition, self._answer_to(again), sent[partition] + more)
                    if protocol.LACKS in reply.values:
                        lacks = reply.values[protocol.LACKS]
                        raise answers.ReplyError(f"the site still lacks model {lacks}, which it was sent")
            except answers.ReplyError as error:
                self.held.pop(partition, None)
                self.leave_out(self.sites[partition], number, str(error))
                continue
            if model is not None:
                self.held[partition] = model.digest
            del answer
            yield reply
            del reply  # or its update would stay in memory while the next site makes its own
        for partition in silent.values():
            self.held.pop(partition, None)
            self.leave_out(self.sites[partition], number, f"no reply within {timeout} s")

    def _message(self, question: _Question, partition: int, held: str | None) -> tuple[Message, int]:
        """What to send a site that is believed to hold a model, and the bytes of its tensors."""
        header, content, model = self._header(question.number, partition), RecordDict(), question.model
        told = {}
        if model is not None:
            header = self.task(header, **question.own(partition))
            told = {protocol.MODEL: model.put(content, held)}
        protocol.write(content, header, **told)
        if question.stats is not None:
            wire.put(content, protocol.STATS, question.stats)
        message = Message(content, self.nodes[partition], question.kind, group_id=str(question.number))
        return message, wire.payload_bytes(content)

    def _parsed(self, question: _Question, partition: int, answer: Message, bytes_down: int) -> Reply:
        """A site's answer, if it is good."""
        tensors = {} if question.model is None else question.model.tensors
        joints = len(self.manifests[partition].joints)
        wanted = answers.wanted(question.kind, tensors, self.params.federation.uplink, joints)
        site, expected = self.sites[partition], self._header(question.number, partition)
        told = answers.parse(answer, question.kind, expected, site, wanted)
        return Reply(site, partition, told, answer.content, wire.payload_bytes(answer.content), bytes_down)

    def _answer_to(self, message: Message) -> Message:
        for answer in self.grid.send_and_receive([message], timeout=self.params.federation.timeout_s):
            return answer
        raise answers.ReplyError(f"no reply within {self.params.federation.timeout_s} s")

    def _header(self, number: int, partition: int) -> protocol.Header:
        return protocol.Header(run=self.run, round=number, partition=partition)

    def central(self) -> CentralPrivacy | None:
        """The run's central privacy; None where its mode is another.

        Raises:
            FederationError: The mode is central, but the server was given none.
        """
        if self.params.privacy.mode == "central" and self.privacy is None:
            raise FederationError("privacy.mode is central, but the server has no ledger to charge; open one first")
        return self.privacy

    def aggregator(self, state: RoundState) -> Aggregator:
        """For the round after a state: the strategy's, or the private mean; use it as a context."""
        if central := self.central():
            return central.aggregator(state.tensors, state.privacy)
        return make_aggregator(self.params.federation, state.tensors, self.workspace)

    def private_row(
        self, state: RoundState, records: Sequence[Mapping[str, float]]
    ) -> tuple[dict[str, float], Remembered]:
        """What privacy adds to a round's row, once all of the round is charged for, and what is to be remembered.

        Args:
            state: After the round before.
            records: The sites' own, of their training.
        """
        if central := self.central():
            row, clip = central.trained(state.privacy, records)
            return row | central.spent(), central.remembered(clip)
        spent = [record["epsilon"] for record in records if "epsilon" in record]
        return ({"epsilon": max(spent), "delta": self.params.privacy.delta} if spent else {}), Remembered()

    def leave_out(self, site: str, number: int, reason: str) -> None:
        """Note that a site does not count in this round, and why.

        Under central privacy the reason, which may tell of the site's data, goes to the operator's terminal only.
        """
        reason = printable(reason)
        if self.params.privacy.mode == "central":
            _log.warning("round %d: %s is left out: %s", number, site, reason)
            reason = "see the server's own log"
        self.left_out[site] = reason
        self.journal.say("site-left-out", f"{site} is left out: {reason}", round=number, site=site)

    def bound(self, site: str, number: int, why: str) -> None:
        """Note that a site's numbers count as others than it told; not to be called under central privacy."""
        self.bounded[site] = "; ".join(filter(None, (self.bounded.get(site), why)))
        self.journal.say("site-bounded", f"{site} counts for less: {why}", round=number, site=site)

    def way_on(self) -> str:
        """Who was left out of the round and why, and what to do where it cannot go on without them."""
        reasons = "; ".join(f"{site}: {reason}" for site, reason in self.left_out.items())
        return f"Left out: {reasons}. Complete rounds are saved; mend the sites and start it again to go on"

    def begin_round(self) -> None:
        """Forget whom the last round left out or bounded."""
        self.left_out, self.bounded = {}, {}

    def enough(self, good: int, number: int, what: str, asked: int | None = None) -> None:
        """Raise unless enough sites answered well, of ``asked`` (None = of all)."""
        asked = len(self.nodes) if asked is None else asked
        needed = self.params.federation.min_replies * asked
        if good < needed or not good:
            raise FederationError(
                f"round {number}: {good} of {asked} sites {what} well and federation.min_replies asks for "
                f"{self.params.federation.min_replies:g}. {self.way_on()}"
            )
