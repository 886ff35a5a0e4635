"""Which sites a run over a network has: who is admitted, who answers, and who is remembered while away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from zk0.data.manifest import Manifest
from zk0.federation.answers import ReplyError
from zk0.federation.discovery import ask_summaries
from zk0.federation.run import config_digest
from zk0.federation.server import FederationError, Server
from zk0.files import read_json, write_json
from zk0.network.security.sites import Site
from zk0.params import Params
from zk0.records.files import read
from zk0.records.paths import RUN, STATES
from zk0.records.run import Run
from zk0.words import printable

_POLL_S = 1.0
# A Grid refuses every message to it: the node of a site that was shut out since the run began, less its partition,
# since a reply tells its site by the node. Flower draws numbers of nodes from 64 bits at random.
NOBODY = 2**64 - 1

Manifests = dict[int, Manifest]


class Presence(Protocol):
    """What tells which nodes are there."""

    def present(self) -> set[int]:
        """Those that were heard of lately."""
        ...


@dataclass
class RollCall:
    """Finds the sites of a run; given to :func:`zk0.federation.run.run_federation`.

    A run's sites are those that answered when it began. It keeps them: one that is away when the run is taken up again
    is remembered, and counts as left out until it is back; one that was revoked stays left out; one that was
    admitted since takes part in the next run, because the common normalisation and the run's name hang on who is in it.

    Args:
        root: Project folder.
        params: The run's.
        base_digest: The starting policy's.
        members: The admitted sites that the SuperLink knows.
        presence: Tells which of their nodes are there.
        wait_s: How long to wait for those that are away; one that is there may take as long as in a round.
        least: With so many of them a new run begins all the same (0 = all).
        misfits: Tells which of those that answered have data that the run cannot use, and why.
    """

    root: Path
    params: Params
    base_digest: str
    members: Sequence[Site]
    presence: Presence
    wait_s: float
    least: int = 0
    misfits: Callable[[Manifests], Mapping[int, str]] = lambda _: {}
    _told: dict[str, str] = field(default_factory=dict)

    def __call__(self, server: Server) -> list[Manifest]:
        """Call the roll and have the server serve who is in the run.

        Returns:
            The manifests, in partition order.

        Raises:
            FederationError: Too few are there to begin; names them.
        """
        answered = self._ask(server)
        sites = {site.partition: site for site in self.members}
        for partition, why in self.misfits(answered).items():
            del answered[partition]
            self._tell(server, sites[partition], printable(f"cannot take part: {why}"))
        nodes = {site.partition: site.node_id for site in self.members if site.node_id}
        run = self._kept(answered)
        if run is None:
            self._check_enough(answered)
            run = answered
        for site in self.members:
            if site.partition not in answered:
                without = "" if site.partition in run else ": the run begins without it"
                self._say(server, "site-away", site, f"is away{without}")
            elif site.partition not in run:
                self._say(server, "site-waits", site, "was not in this run when it began, and takes part in the next")
        manifests = server.serve({number: (nodes.get(number, NOBODY - number), run[number]) for number in run})
        write_json(self._file, {"run": self._digest(run), "sites": [manifest.content() for manifest in manifests]})
        return manifests

    def _ask(self, server: Server) -> Manifests:
        """Ask those that are there until all have answered, or time is over."""
        deadline = time.monotonic() + self.wait_s
        answered: Manifests = {}
        while True:
            missing = {site.node_id: site for site in self.members if site.node_id and site.partition not in answered}
            there = self.presence.present()
            asked = {node: site.partition for node, site in missing.items() if node in there}
            # Who is there, and only slow, gets as long as in a round.
            longest = max(self.params.federation.timeout_s, deadline - time.monotonic())
            names = {node: missing[node].name for node in asked}
            known = {node: {"site": missing[node].name, "partition": missing[node].partition} for node in asked}
            for node, answer in ask_summaries(server, asked, names, known.__getitem__, longest) if asked else ():
                if isinstance(answer, ReplyError):
                    self._tell(server, missing[node], f"cannot take part: {answer}")
                else:
                    answered[asked[node]] = answer
                    self._tell(server, missing[node], "is there")
            if len(answered) == len(self.members) or time.monotonic() >= deadline:
                return answered
            for node, site in missing.items():
                if node not in asked:
                    self._tell(server, site, "is awaited")
            time.sleep(_POLL_S)

    def _tell(self, server: Server, site: Site, what: str) -> None:
        if self._told.get(site.name) != what:
            self._told[site.name] = what
            self._say(server, "roll-call", site, what)

    @staticmethod
    def _say(server: Server, event: str, site: Site, what: str) -> None:
        server.journal.say(event, f"{site.name} {what}", round=0, site=site.name)

    def _kept(self, answered: Manifests) -> Manifests | None:
        """The sites of the last run, if this is to go on with it: nothing that decides its model has changed."""
        if not self._file.exists():
            return None
        last = read_json(self._file)
        told = [Manifest.model_validate(site | {"episode_digests": {}}) for site in last["sites"]]
        run = {manifest.partition: manifest for manifest in told}
        for partition, manifest in answered.items():
            # Of the same data, what counts is what the site first said of it: how many frames, above all.
            if partition in run and manifest.digest != run[partition].digest:
                run[partition] = manifest
        newcomers = answered.keys() - run.keys()
        same = self._digest(run) == last["run"]
        return run if same and not (newcomers and self._is_complete(last["run"])) else None

    def _is_complete(self, run: str) -> bool:
        return (self.root / RUN).exists() and read(self.root, Run).run == run

    def _digest(self, run: Manifests) -> str:
        return config_digest(self.params, self.base_digest, [run[partition] for partition in sorted(run)])

    def _check_enough(self, answered: Manifests) -> None:
        away = [site.name for site in self.members if site.partition not in answered]
        least = min(self.least, len(self.members)) or len(self.members)
        if len(answered) < max(1, least):
            why = "; ".join(f"{name} {self._told.get(name, 'is away')}" for name in away)
            raise FederationError(
                f"{len(answered)} of {len(self.members)} sites are there after {self.wait_s:.0f} s, and a new run "
                f"needs {least}: {why}. Have their owners run `zk0 client status`, or begin without them: "
                "`zk0 server run --min-sites N`"
            )

    @property
    def _file(self) -> Path:
        return self.root / STATES / "network.json"
