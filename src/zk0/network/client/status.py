"""How a site's part in a federation goes, by what it keeps itself: processes, journal and logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zk0.errors import StageError
from zk0.network.client.membership import EVENTS, Membership
from zk0.network.client.node import NAMES, SUPERNODE, TRAINER, check_server, node_number
from zk0.records.files import events_so_far
from zk0.records.run import Event

_MESSAGES = ("train", "evaluate", "query.summary", "query.statistics")


@dataclass(frozen=True)
class SiteStatus:
    """What a site's owner wants to know.

    Attributes:
        membership: Whose it is.
        running: Service to its process.
        given_up: Services that ended so often that they are not started again.
        node: Flower's number of the node, where the server has let it in since the last start.
        server_says: What is wrong with the server, seen from here; None where it answers.
        events: All that the trainer has noted.
    """

    membership: Membership
    running: dict[str, int]
    given_up: list[str]
    node: str | None
    server_says: str | None
    events: list[Event]

    @property
    def connected(self) -> bool:
        """Whether the site takes part at this moment, as far as it can know itself."""
        return set(self.running) >= set(NAMES) and self.node is not None and self.server_says is None

    @property
    def logs(self) -> dict[str, Path]:
        """Service to its log, and ``events`` to the journal."""
        logs = {name: self.membership.services.log(name) for name in (TRAINER, SUPERNODE)}
        return {**logs, "events": self.membership.folder / EVENTS}

    @property
    def state(self) -> str:
        """How the site is connected, in words."""
        if self.membership.left:
            return f"left on {self.membership.left}"
        if not self.running and not self.given_up:
            return "stopped; `zk0 client start` starts it"
        if self.given_up:
            return (
                f"{', '.join(self.given_up)} ended too often; see the log, and start it again with `zk0 client start`"
            )
        if missing := [name for name in NAMES if name not in self.running]:
            return f"{', '.join(missing)} ended, and is started again by itself"
        if self.server_says:
            return f"not connected, and tries again by itself: {self.server_says}"
        return f"connected as node {self.node}" if self.node else "not let in yet, and tries again by itself"

    def rows(self) -> list[tuple[str, str]]:
        """What to show a person: pairs of a name and what is found."""
        invitation = self.membership.invitation
        served = [event for event in self.events if event.event in _MESSAGES]
        trained = [event for event in served if event.event == "train" and event.train_loss is not None]
        judged = [event for event in served if event.held_out_loss is not None]
        failures = sum(event.event in ("failed", "lost") for event in self.events)
        return [
            ("site", f"{invitation.site}, number {invitation.partition} in the federation '{invitation.federation}'"),
            ("server", invitation.server),
            ("state", self.state),
            ("rounds trained", str(len({(event.run, event.round) for event in trained}))),
            ("messages", f"{len(served)} served, {failures} not"),
            ("last message", _last(served)),
            ("last training", _last(trained)),
            ("last evaluation", _last(judged)),
            *((f"log of {name}" if name in NAMES else name, str(path)) for name, path in self.logs.items()),
        ]


def site_status(membership: Membership) -> SiteStatus:
    """How it goes; asks the server whether it answers, which may take ten seconds where it does not."""
    services = membership.services
    running = {name: process.pid for name, process in services.running().items()}
    says: str | None = None
    if running:
        try:
            check_server(membership.invitation)
        except StageError as error:
            says = str(error)
    node = node_number(membership) if SUPERNODE in running else None
    return SiteStatus(membership, running, services.given_up(), node, says, events_so_far(membership.folder / EVENTS))


def _last(events: list[Event]) -> str:
    last = events[-1] if events else None
    return f"{last.time}, round {last.round}: {last.message}" if last else "none yet"
