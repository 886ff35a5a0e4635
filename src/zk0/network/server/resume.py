"""A run is followed to its end; one that was interrupted is taken up again, without a person.

Interrupted is what ended without a word of its own: its SuperLink, SuperExec or ServerApp died. A run that failed by
itself, as where too few sites answered, waits for a person, who has to see why; so does one that a person stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from zk0.errors import StageError
from zk0.federation.flower import Status, SubStatus
from zk0.network.config import CONFIG, DeploymentConfig
from zk0.network.security.files import SUPERLINK
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer, Run, interrupt, runs_of
from zk0.network.server.wanted import INTERRUPTED, Wanted, forget_wanted, wanted_run
from zk0.records.files import EventsAsTheyCome, rounds_so_far
from zk0.records.paths import EVENTS
from zk0.records.run import Event
from zk0.services.process import RUN

# Taken up so often without a complete round in between, it is given up: it may be the run itself that kills its server.
TRIES = 5
PREFIX = "ServerApp failed with exception: "
_POLL_S = 0.3
_ASK_S = 2.0  # how often the SuperLink is asked; events are read in between


def resumes(root: Path) -> bool:
    """Whether runs of a project are taken up again; ``resume`` of deployment.yaml says no."""
    return DeploymentConfig.read(root / CONFIG).resume if (root / CONFIG).exists() else True


def take_up(server: FederationServer) -> int | None:
    """Hand the wanted run over again if it was interrupted. Commands of different processes may ask at once.

    Args:
        server: Its services are running, or will be.

    Returns:
        The run's new number; None where nothing is to be taken up.

    Raises:
        StageError: The SuperLink is away; ask again later.
    """
    root = server.root
    if wanted_run(root) is None:
        return None
    try:
        with FileLock(root / RUN / SUPERLINK / "resume.lock", timeout=0):
            wanted = wanted_run(root)
            return None if wanted is None or wanted.given_up else _take_up(server, wanted)
    except Timeout:
        return None


def follow_on(server: FederationServer, number: int) -> int | None:
    """The number under which a run that is over goes on; its own while that is to be seen, None where it does not."""
    if not resumes(server.root):
        return None
    try:
        taken = take_up(server)
    except StageError:
        taken = None
    if taken is not None:
        return taken
    wanted = wanted_run(server.root)
    if wanted is None or wanted.given_up or number not in (wanted.number, *wanted.earlier):
        return None
    return wanted.number


def comes_back(server: FederationServer) -> bool:
    """Whether a SuperLink that is away will be there again, and its run with it."""
    services = server.services
    return resumes(server.root) and SUPERLINK in services.known() and SUPERLINK not in services.given_up()


def _take_up(server: FederationServer, wanted: Wanted) -> int | None:
    found = runs_of(server, wanted.number)
    run = found[0] if found else None
    if run is not None and not run.finished:
        if _lost_its_process(server, run):
            interrupt(server)  # and taken up at the next look; the SuperLink itself would notice in a minute
        return None
    if not is_interrupted(run, wanted):
        forget_wanted(server.root)
        return None
    rows = rounds_so_far(server.root)
    done = rows[-1].round if rows else 0
    tries = wanted.tries + 1 if done == wanted.round else 1
    if tries > TRIES:
        replace(wanted, given_up=True).write(server.root)
        return None
    server.sync()
    client_app, server_app = wanted.apps
    number = submit(server, client_app, server_app, **wanted.settings)
    earlier = [*wanted.earlier, wanted.number]
    Wanted(number, wanted.apps, wanted.settings, earlier, done, tries).write(server.root)
    return number


def _lost_its_process(server: FederationServer, run: Run) -> bool:
    """Whether the SuperExec that runs now is not the one that started the run's ServerApp, which went with it."""
    superexec = server.services.running().get("superexec")
    if superexec is None or run.status != Status.RUNNING or not run.begun:
        return False
    return superexec.create_time() > datetime.fromisoformat(run.begun).timestamp()


def is_interrupted(run: Run | None, wanted: Wanted) -> bool:
    """Whether a run that is over was cut off, and neither failed by itself nor was stopped by a person."""
    if run is None:  # its SuperLink began with a new database
        return True
    if run.outcome == SubStatus.STOPPED:
        return wanted.stopped
    own_words = run.details.startswith(PREFIX) and not run.details.startswith(PREFIX + INTERRUPTED)
    return run.outcome == SubStatus.FAILED and not own_words


def watch(server: FederationServer, number: int, since: datetime | None = None) -> Iterator[Event]:
    """Yield what a run says of itself, as it says it, until it ends; one that is interrupted is taken up again.

    Args:
        server: Whose run.
        number: Which.
        since: Leave out what was said before; None yields all that the run's folder remembers.

    Raises:
        StageError: The run failed, was stopped, or the SuperLink is away; says why and what to do.
    """
    last = "" if since is None else since.astimezone(UTC).isoformat(timespec="milliseconds")
    told: set[str] = set()
    asked, known = 0.0, True
    run: Run | None = None
    with EventsAsTheyCome(server.root / EVENTS) as events:
        while True:
            if time.monotonic() - asked > _ASK_S:
                asked = time.monotonic()
                run, known = _looked_up(server, number, run)
            for event in events.more():  # of a run that is resumed the file is written anew, with all that was said
                line = repr(event)
                if (event.time or "") >= last and line not in told:
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
    try:
        found = runs_of(server, number)
    except StageError:
        if not comes_back(server):
            raise
        return last, True
    return (found[0], True) if found else (None, False)


def _why(server: FederationServer, run: Run) -> str:
    again = "complete rounds are saved, and `zk0 server run` goes on from the last one"
    if run.outcome == SubStatus.STOPPED:
        return f"stopped; {again}"
    why = run.details.removeprefix(PREFIX).strip() or "the SuperLink does not say why"
    return f"{why}\n{again}; more is in {server.services.log('serverapp')}"
