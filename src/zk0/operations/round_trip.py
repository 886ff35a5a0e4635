"""A round-trip message to each site, by a run of its own: gateway, SuperLink, node, ClientApp, trainer, and back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from zk0.errors import StageError
from zk0.files import read_json
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer, halt, runs_of
from zk0.operations.round_trip_app import FOUND

SERVER_APP = "zk0.operations.round_trip_app:app"
NAME = "zk0-health"
_WAIT_S = 60.0
_START_S = 60.0  # for the ServerApp's process
_POLL_S = 0.5


@dataclass(frozen=True)
class RoundTrip:
    """What became of a site's message.

    Attributes:
        seconds: Until its reply was there; None where there was none.
        problem: Why there was none, or what the site had to say; empty where all went well.
    """

    seconds: float | None
    problem: str


def round_trips(server: FederationServer, wait_s: float = _WAIT_S) -> dict[str, RoundTrip]:
    """Send each admitted site a message, and wait for the replies.

    Args:
        server: Its services are running, and no run is in progress.
        wait_s: How long sites may take.

    Returns:
        By site.

    Raises:
        StageError: A run is in progress, or this one failed.
    """
    file = server.root / FOUND
    file.unlink(missing_ok=True)
    server.sync()
    number = submit(server, server_app=SERVER_APP, name=NAME, wait_s=wait_s)
    deadline = time.monotonic() + wait_s + _START_S
    while not runs_of(server, number)[0].finished:
        if time.monotonic() > deadline:
            halt(server, number)
            raise StageError(f"the message's run did not end within {wait_s + _START_S:.0f} s, and was stopped")
        time.sleep(_POLL_S)
    if not file.exists():
        raise StageError(
            f"the message's run failed: {runs_of(server, number)[0].details or 'see `zk0 logs superexec`'}"
        )
    return {site: RoundTrip(one.get("seconds"), one["problem"]) for site, one in read_json(file).items()}
