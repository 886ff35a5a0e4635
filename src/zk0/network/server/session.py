"""A run in the foreground: prepared, handed over, told of, and stopped by Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from zk0.console import console
from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import NAMES, FederationServer, halt, runs_of
from zk0.params import PARAMS_FILE, Params, load_params
from zk0.records.journal import print_event
from zk0.sources import LOCK, LockEntry
from zk0.sources_lock import resolve_policy


def run_to_the_end(server: FederationServer, **settings: Any) -> None:
    """Run a federation, or go on with it, and tell of it until it ends.

    Args:
        server: Its services are running.
        settings: For the ServerApp, see :func:`submit`.

    Raises:
        StageError: The services do not run, the run failed, or it was stopped; says what to do.
    """
    prepare(server)
    since = datetime.now(UTC)
    number = submit(server, **settings)
    console.print(f"run {number}", style="bold", markup=False)
    _tell(server, number, since)
    console.print(f"global model in {server.root / 'checkpoints'}", markup=False)


def follow(server: FederationServer) -> None:
    """Tell of the run in progress until it ends; Ctrl-C ends the telling alone.

    Raises:
        StageError: None is in progress, or it failed.
    """
    busy = [run for run in runs_of(server) if not run.finished]
    if not busy:
        raise StageError("no run is in progress; `zk0 server run` starts one, or goes on")
    try:
        for event in watch(server, busy[0].number):
            print_event(event)
    except KeyboardInterrupt:
        console.print("the run goes on; `zk0 server halt` stops it", markup=False)


def prepare(server: FederationServer) -> None:
    """What a run needs: params and a starting policy that are there, running services, registered sites.

    Raises:
        StageError: One is missing; says what to do.
    """
    params = load_params(server.root / PARAMS_FILE)
    running = server.services.running()
    if away := [name for name in reversed(NAMES) if name not in running]:
        raise StageError(f"{', '.join(away)} not running; `zk0 server start` starts the server")
    lock_policy(server, params)
    for change in server.sync():
        console.print(change, markup=False)


def lock_policy(server: FederationServer, params: Params) -> LockEntry:
    """Note what the starting policy is at this moment; what the lock says of sources stays as it is.

    Raises:
        StageError: It cannot be found.
    """
    file = server.root / LOCK
    lock = read_json(file) if file.exists() else {"sources": {}, "unseen": {}, "policy": {}}
    try:
        policy = resolve_policy(params, server.root, lock["policy"])
    except ValueError as error:
        raise StageError(f"policy.base: {error}") from error
    if policy != lock["policy"]:
        write_json(file, {**lock, "policy": policy})
    return policy


def _tell(server: FederationServer, number: int, since: datetime) -> None:
    """Print a run's events; Ctrl-C and SIGTERM stop the run."""
    with _terminated_as_interrupted():
        try:
            for event in watch(server, number, since):
                print_event(event)
        except KeyboardInterrupt:
            halt(server)
            raise StageError(
                "stopped; complete rounds are saved, and `zk0 server run` goes on from the last one"
            ) from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
