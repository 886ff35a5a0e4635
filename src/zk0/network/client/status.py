"""How a site's part in a federation goes, by what it keeps itself: processes, journal and logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.errors import StageError
from zk0.network.client.membership import EVENTS, Membership
from zk0.network.client.node import NAMES, SUPERNODE, TRAINER, check_server, node_number
from zk0.records.journal import read_lines

_MESSAGES = ("train", "evaluate", "query.summary", "query.statistics")


@dataclass(frozen=True)
class SiteStatus:
    """What a site's owner wants to know.

    Attributes:
        site, federation, server, partition: As in the invitation.
        left: When the owner left; None while it is a member.
        running: Service to its process.
        given_up: Services that ended so often that they are not started again.
        node: Flower's number of the node, where the server has let it in since the last start.
        server_says: What is wrong with the server, seen from here; None where it answers.
        rounds: In how many rounds the site trained, over all runs.
        messages: How many messages it has served.
        failures: How many it could not.
        last: Its last message's event; None where there was none.
        training: Its last training's.
        judging: Its last evaluation's.
        logs: Service to its log, and ``events`` to the journal.
    """

    site: str
    federation: str
    server: str
    partition: int
    left: str | None
    running: dict[str, int]
    given_up: list[str]
    node: str | None
    server_says: str | None
    rounds: int
    messages: int
    failures: int
    last: dict[str, Any] | None
    training: dict[str, Any] | None
    judging: dict[str, Any] | None
    logs: dict[str, Path]

    @property
    def connected(self) -> bool:
        """Whether the site takes part at this moment, as far as it can know itself."""
        return set(self.running) >= set(NAMES) and self.node is not None and self.server_says is None

    @property
    def state(self) -> str:
        """In words."""
        if self.left:
            return f"left on {self.left}"
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
        """As a table for people."""
        return [
            ("site", f"{self.site}, number {self.partition} in the federation '{self.federation}'"),
            ("server", self.server),
            ("state", self.state),
            ("rounds trained", str(self.rounds)),
            ("messages", f"{self.messages} served, {self.failures} not"),
            ("last message", _told(self.last)),
            ("last training", _told(self.training)),
            ("last evaluation", _told(self.judging)),
            *((f"log of {name}" if name in NAMES else name, str(path)) for name, path in self.logs.items()),
        ]


def site_status(membership: Membership, ask_server: bool = True) -> SiteStatus:
    """How it goes.

    Args:
        membership: Whose.
        ask_server: Whether to see if the server answers, which may take ten seconds where it does not.
    """
    invitation, services = membership.invitation, membership.services
    running = {name: process.pid for name, process in services.running().items()}
    says: str | None = None
    if ask_server and running:
        try:
            check_server(invitation)
        except StageError as error:
            says = str(error)
    events = read_lines(membership.folder / EVENTS)
    served = [event for event in events if event["event"] in _MESSAGES]
    trained = [event for event in served if event["event"] == "train" and "train_loss" in event]
    judged = [event for event in served if "held_out_loss" in event]
    return SiteStatus(
        site=invitation.site,
        federation=invitation.federation,
        server=invitation.server,
        partition=invitation.partition,
        left=membership.left,
        running=running,
        given_up=services.given_up(),
        node=node_number(membership) if SUPERNODE in running else None,
        server_says=says,
        rounds=len({(event["run"], event["round"]) for event in trained}),
        messages=len(served),
        failures=sum(event["event"] in ("failed", "lost") for event in events),
        last=_last(served),
        training=_last(trained),
        judging=_last(judged),
        logs={
            **{name: services.log(name) for name in (TRAINER, SUPERNODE)},
            "events": membership.folder / EVENTS,
        },
    )


def _last(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    return events[-1] if events else None


def _told(event: dict[str, Any] | None) -> str:
    return f"{event['time']}, round {event['round']}: {event['message']}" if event else "none yet"
