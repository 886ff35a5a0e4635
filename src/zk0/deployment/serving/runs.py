"""A run of the federation: handed to the SuperLink, watched until it ends, stopped."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.supercore.fab import Fab

from zk0.deployment.bundle import CLIENT_APP, NAME, SERVER_APP, write_bundle
from zk0.deployment.serving.services import FederationServer
from zk0.deployment.serving.wanted import Wanted, forget_wanted, wanted_run
from zk0.errors import StageError
from zk0.federation.journal import read_lines
from zk0.federation.paths import EVENTS, RESULTS

_POLL_S = 0.3
_ASK_S = 2.0  # how often the SuperLink is asked; events are read in between
PREFIX = "ServerApp failed with exception: "


@dataclass(frozen=True)
class Run:
    """A run as the SuperLink knows it.

    Attributes:
        number: The SuperLink's.
        status: ``pending``, ``starting``, ``running`` or ``finished``.
        outcome: ``completed``, ``failed`` or ``stopped`` once it is finished.
        details: Why it failed.
        started: When it was handed over, ISO 8601.
        app: Name of its app.
        begun: When its ServerApp began, ISO 8601; empty before.
    """

    number: int
    status: str
    outcome: str
    details: str
    started: str
    app: str = NAME
    begun: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing of it is to come."""
        return self.status == Status.FINISHED


def runs_of(server: FederationServer, number: int | None = None) -> list[Run]:
    """The runs that the SuperLink knows, the last first.

    Args:
        server: Whose.
        number: Only this one.
    """
    request = ListRunsRequest() if number is None else ListRunsRequest(run_id=number)
    with server.control() as client:
        found = client.ListRuns(request).run_dict.values()
        runs = [
            Run(
                number=r.run_id,
                status=r.status.status,
                outcome=r.status.sub_status,
                details=r.status.details,
                started=r.pending_at,
                app=r.fab_id.split("/")[-1],
                begun=r.running_at,
            )
            for r in found
        ]
    return sorted(runs, key=lambda run: run.started, reverse=True)


def submit(
    server: FederationServer,
    client_app: str = CLIENT_APP,
    server_app: str = SERVER_APP,
    name: str = NAME,
    **settings: str | float | int,
) -> int:
    """Hand a run over to the SuperLink.

    Args:
        server: Which runs, with the sites that are to take part.
        client_app: As sites have it installed.
        server_app: As the server has.
        name: The app's, by which runs are told apart.
        settings: For the ServerApp, by the names of the bundle with ``_`` for ``-``.

    Returns:
        The run's number.

    Raises:
        StageError: One is in progress already, or the SuperLink does not take it.
    """
    if busy := [run for run in runs_of(server) if not run.finished]:
        raise StageError(
            f"run {busy[0].number} is in progress; `zk0 server watch` follows it, `zk0 server halt` stops it"
        )
    with tempfile.TemporaryDirectory() as folder:
        app = build_fab_from_disk(write_bundle(Path(folder) / "app", client_app, server_app, name))
    config: Any = {key.replace("_", "-"): value for key, value in settings.items()}
    request = StartRunRequest(
        fab=fab_to_proto(Fab(hashlib.sha256(app).hexdigest(), app, {})), override_config=user_config_to_proto(config)
    )
    with server.control() as client:
        answer = client.StartRun(request)
    if not answer.HasField("run_id"):
        raise StageError(f"the SuperLink did not take the run; its log is {server.services.log('superlink')}")
    if name == NAME:
        Wanted(int(answer.run_id), (client_app, server_app), settings).write(server.root)
    return int(answer.run_id)


def watch(server: FederationServer, number: int, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Yield what a run says of itself, as it says it, until it ends; one that is interrupted is taken up again.

    Args:
        server: Whose run.
        number: Which.
        since: Leave out what was said before; None yields all that the run's folder remembers.

    Raises:
        StageError: The run failed, was stopped, or the SuperLink is away; says why and what to do.
    """
    from zk0.deployment.serving.resume import follow_on

    file = server.root / RESULTS / EVENTS
    last = "" if since is None else since.astimezone(UTC).isoformat(timespec="milliseconds")
    told: set[str] = set()
    asked, known = 0.0, True
    run: Run | None = None
    while True:
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            run, known = _looked_up(server, number, run)
        for event in read_lines(file):  # of a run that is resumed the file is written anew, with all that was said
            line = repr(event)
            if event["time"] >= last and line not in told:
                told.add(line)
                yield event
        if not known or (run is not None and run.finished):
            following = follow_on(server, number)
            if following is None:
                break
            number = following
        time.sleep(_POLL_S)
    if run is None:
        raise StageError(f"the SuperLink knows no run {number}; `zk0 server run` starts one, or goes on")
    if run.outcome != SubStatus.COMPLETED:
        raise StageError(_why(server, run))


def _looked_up(server: FederationServer, number: int, last: Run | None) -> tuple[Run | None, bool]:
    """A run as the SuperLink has it, or had it last, if that comes back; and whether it knows it."""
    from zk0.deployment.serving.resume import comes_back

    try:
        found = runs_of(server, number)
    except StageError:
        if not comes_back(server):
            raise
        return last, True
    return (found[0], True) if found else (None, False)


def halt(server: FederationServer, number: int | None = None) -> list[int]:
    """Stop a run, or every one that is in progress, for good; complete rounds are saved.

    Returns:
        Numbers of those that were stopped.
    """
    wanted = wanted_run(server.root)
    if wanted is not None and number in (None, wanted.number, *wanted.earlier):
        forget_wanted(server.root)
    return _stop(server, number)


def interrupt(server: FederationServer) -> list[int]:
    """Stop what the SuperLink takes for runs in progress, though nobody wants them stopped: their ServerApp is gone.

    Returns:
        Numbers of those that were stopped.
    """
    if (wanted := wanted_run(server.root)) is not None:
        replace(wanted, stopped=True).write(server.root)
    return _stop(server)


def _stop(server: FederationServer, number: int | None = None) -> list[int]:
    busy = [run.number for run in runs_of(server, number) if not run.finished]
    with server.control() as client:
        for one in busy:
            client.StopRun(StopRunRequest(run_id=one))
    return busy


def _why(server: FederationServer, run: Run) -> str:
    again = "complete rounds are saved, and `zk0 server run` goes on from the last one"
    if run.outcome == SubStatus.STOPPED:
        return f"stopped; {again}"
    why = run.details.removeprefix(PREFIX).strip() or "the SuperLink does not say why"
    return f"{why}\n{again}; more is in {server.services.log('serverapp')}"
