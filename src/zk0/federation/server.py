"""The server's side of a federation: ask the sites, check what they answer, leave out what is not sound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from zk0.errors import StageError
from zk0.federation import answers, protocol, wire
from zk0.federation.agreement import agree
from zk0.federation.answers import Reply
from zk0.federation.broadcast import Model
from zk0.federation.privacy.central import CentralPrivacy
from zk0.federation.statistics import Moments, pack_stats
from zk0.federation.update_buffer import in_order
from zk0.params import Params, PrivacyParams
from zk0.policy.checkpoint import Stats
from zk0.records.journal import Journal
from zk0.words import printable

_log = logging.getLogger(__name__)

Build = Callable[[protocol.Header], tuple[protocol.Header, dict[str, ArrayRecord]]]


class FederationError(StageError):
    """A round could not be completed; what was complete is saved and can be resumed."""


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
        self.manifests: dict[int, dict[str, Any]] = {}

    def serve(self, roll: dict[int, tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Take sites into the run: by partition, node and manifest.

        Returns:
            The manifests, in partition order.
        """
        ordered = sorted(roll.items())
        self.nodes = {partition: node for partition, (node, _) in ordered}
        self.manifests = {partition: manifest for partition, (_, manifest) in ordered}
        self.sites = {partition: manifest["site"] for partition, manifest in self.manifests.items()}
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
        for reply in self._ask(protocol.STATISTICS, 0, lambda header: (header, {})):
            try:
                moments = Moments.from_tensors(wire.unpack(reply.content, protocol.MOMENTS))
                moments.check(self.manifests[reply.partition]["train_frames"])
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
        settings: dict[str, Any] = {
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
            "privacy": params.privacy if params.privacy.mode == "site" else PrivacyParams(),
        }
        return protocol.SiteTask(**(settings | changes))

    def ask_with_model(
        self,
        kind: str,
        number: int,
        model: Model,
        stats: Stats,
        own: Callable[[int], dict[str, Any]] = lambda partition: {},
        partitions: Sequence[int] | None = None,
    ) -> Iterator[Reply]:
        """Send sites what they lack of a model; yield the good replies in partition order.

        Args:
            kind: Train or evaluate.
            number: The round.
            model: What to train from or to judge.
            stats: The common normalisation.
            own: What differs of a partition's task from :meth:`task`, such as ``used`` and ``keep``.
            partitions: Which sites, in order; None for all.
        """
        records = {protocol.STATS: wire.encode(pack_stats(stats))}

        def build(header: protocol.Header) -> tuple[protocol.Header, dict[str, ArrayRecord]]:
            return self.task(header, **own(header.partition)), records

        return self._ask(kind, number, build, model, partitions)

    def _ask(
        self,
        kind: str,
        number: int,
        build: Build,
        model: Model | None = None,
        partitions: Sequence[int] | None = None,
    ) -> Iterator[Reply]:
        expected: dict[int, tuple[protocol.Header, int]] = {}
        tensors = {} if model is None else model.tensors

        def checked(answer: Message, header: protocol.Header, bytes_down: int) -> Reply:
            partition, site = header.partition, self.sites[header.partition]
            joints = len(self.manifests[partition]["joints"])
            wanted = answers.wanted(kind, tensors, self.params.federation.uplink, joints)
            told = answers.parse(answer, kind, header, site, wanted)
            return Reply(site, partition, told, answer.content, wire.payload_bytes(answer.content), bytes_down)

        def message(partition: int, held: str | None) -> Message:
            """For one site, which is believed to hold a model; notes what is expected of it."""
            node = self.nodes[partition]
            header, records = build(protocol.Header(run=self.run, round=number, partition=partition))
            content = RecordDict()
            told = {} if model is None else {protocol.MODEL: model.put(content, held)}
            protocol.write(content, header, **told)
            for name, record in records.items():
                wire.put(content, name, record)
            expected[node] = (header, wire.payload_bytes(content))
            return Message(content, node, kind, group_id=str(number))

        timeout = self.params.federation.timeout_s
        asked = list(self.nodes) if partitions is None else partitions
        messages = [message(partition, self.held.get(partition)) for partition in asked]
        arrived = self.grid.send_and_receive(messages, timeout=timeout)
        for answer in in_order(arrived, [self.nodes[partition] for partition in asked], self.workspace):
            node = answer.metadata.src_node_id
            header, bytes_down = expected.pop(node)
            site = self.sites[header.partition]
            try:
                reply = checked(answer, header, bytes_down)
                if protocol.LACKS in reply.values:
                    again = self._once(message(header.partition, None))
                    reply = checked(again, header, bytes_down + expected.pop(node)[1])
                    del again
                    if protocol.LACKS in reply.values:
                        lacks = reply.values[protocol.LACKS]
                        raise answers.ReplyError(f"the site still lacks model {lacks}, which it was sent")
            except answers.ReplyError as error:
                expected.pop(node, None)
                self.held.pop(header.partition, None)
                self.leave_out(site, number, str(error))
                continue
            if model is not None:
                self.held[header.partition] = model.digest
            del answer
            yield reply
            del reply  # or its update would stay in memory while the next site makes its own
        for header, _ in expected.values():
            self.held.pop(header.partition, None)
            self.leave_out(self.sites[header.partition], number, f"no reply within {timeout} s")

    def _once(self, message: Message) -> Message:
        """The answer to one message."""
        for answer in self.grid.send_and_receive([message], timeout=self.params.federation.timeout_s):
            return answer
        raise answers.ReplyError(f"no reply within {self.params.federation.timeout_s} s")

    def central(self) -> CentralPrivacy | None:
        """The run's central privacy; None where its mode is another.

        Raises:
            FederationError: The mode is central, but the server was given none.
        """
        if self.params.privacy.mode == "central" and self.privacy is None:
            raise FederationError("privacy.mode is central, but the server has no ledger to charge; open one first")
        return self.privacy

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

    def _reasons(self) -> str:
        return "; ".join(f"{site}: {reason}" for site, reason in self.left_out.items())

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
                f"{self.params.federation.min_replies:g}. Left out: {self._reasons()}. Complete rounds are saved; "
                "mend the sites and start it again to go on"
            )
