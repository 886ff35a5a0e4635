"""server: the eight steps of an operator, from services that run to a model that is judged and a checklist."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zk0.console import console
from zk0.environment import check_environment
from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.network.server.control import members_of
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.security_checks import security_checks
from zk0.network.server.services import NAMES, FederationServer, halt, present_nodes, runs_of
from zk0.params import PARAMS_FILE, Params, load_params
from zk0.pipeline.validate import failed_checks, show_checks
from zk0.records.files import rounds_so_far
from zk0.records.journal import print_event
from zk0.records.paths import ENVIRONMENT
from zk0.sources import LOCK, LockEntry
from zk0.sources_lock import resolve_policy
from zk0.steps import Outcome, RoundStep, Step, run_steps, step

SECURITY_REPORT = Path("results/security.json")
_POLL_S = 1.0

# Sites have answered when their updates are combined, and have the new model when they have judged it.
ROUND_STEPS = (
    RoundStep("round orchestration", "The sites have got their tasks, and have trained or were left out.", "aggregate"),
    RoundStep("parameter aggregation", "Their updates are combined.", "aggregate"),
    RoundStep("model distribution", "The sites have the new model, and have judged it.", "evaluate"),
)


@dataclass(frozen=True)
class Serving:
    """A federation that is to be run.

    Attributes:
        server: Its services.
        params: Its params.
        wait_s: How long to wait for sites that are away.
        min_sites: With so many of them a new run begins (0 = all).
        sites: Names, separated by commas; all admitted sites where there are none.
    """

    server: FederationServer
    params: Params
    wait_s: float = 60.0
    min_sites: int = 0
    sites: str = ""

    @classmethod
    def open(cls, root: Path, **settings: Any) -> Serving:
        """Read the params.

        Raises:
            ParamsError: params.yaml is missing or wrong.
        """
        return cls(FederationServer(root.resolve()), load_params(root / PARAMS_FILE), **settings)

    @property
    def settings(self) -> dict[str, Any]:
        """For the ServerApp."""
        return {"wait_s": self.wait_s, "min_sites": self.min_sites, "sites": self.sites}


def run(serving: Serving) -> None:
    """Run all steps, and tell of each; the rounds tell of themselves.

    Raises:
        StageError: A step refused, the run failed, or it was stopped; says what to do.
    """
    run_steps(STEPS, lambda one: one(serving))


@step("Flower server initialization")
def initialise(serving: Serving) -> Outcome:
    """Check this machine, start what does not run of the services, and find the starting policy."""
    report = check_environment(serving.params, serving.server.root, data=False)
    write_json(serving.server.root / ENVIRONMENT, asdict(report))
    failed_checks(report.checks)
    policy = lock_policy(serving.server, serving.params)
    started = serving.server.start()
    told = f"started: {', '.join(started)}" if started else "SuperLink, SuperExec and gateway run"
    return Outcome(bool(started), (told, f"starting from {policy['source']} at {policy['digest'][:12]}"))


@step("strategy selection")
def select_strategy(serving: Serving) -> Outcome:
    """Say which strategy combines the updates, and refuse one that needs more sites than there are."""
    # With torch, which `zk0 server watch` does without.
    from zk0.federation.plan import sites_drawn
    from zk0.federation.strategy import check_enough, server_rate

    federation = serving.params.federation
    sites = [site for site in serving.server.registry.sites() if site.admitted]
    if not sites:
        raise StageError("no site is admitted; `zk0 site admit NAME PUBKEY --server HOST:PORT` lets one in")
    drawn = sites_drawn(len(sites), federation.fraction)
    check_enough(federation, drawn)
    told = f"{federation.strategy}, server learning rate {server_rate(federation):g}, weighting {federation.weighting}"
    return Outcome(False, (f"{told}; {drawn} of {len(sites)} sites train in a round",))


@step("client registration")
def register(serving: Serving) -> Outcome:
    """Have the SuperLink know the admitted sites' keys and no others, and wait for their nodes."""
    server = serving.server
    changes = server.sync()
    members = members_of(server.registry.sites(), [name for name in serving.sites.split(",") if name])
    deadline = time.monotonic() + serving.wait_s
    while True:
        there = present_nodes(server)
        away = [site.name for site in members if site.node_id not in there]
        if not away or time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    here = [site.name for site in members if site.name not in away]
    warnings = (f"away after {serving.wait_s:.0f} s: {', '.join(away)}",) if away else ()
    return Outcome(bool(changes), (*changes, f"{len(here)} of {len(members)} sites are there"), warnings)


@step(ROUND_STEPS[0].name, rounds=ROUND_STEPS)
def run_rounds(serving: Serving) -> None:
    """Run a federation, or go on with it, and tell of it until it ends; Ctrl-C and SIGTERM stop the run.

    Raises:
        StageError: The services do not run, the run failed, or it was stopped; says what to do.
    """
    server = serving.server
    prepare(server)
    since = datetime.now(UTC)
    number = submit(server, **serving.settings)
    console.print(f"run {number}", style="bold", markup=False)
    with _terminated_as_interrupted():
        try:
            for event in watch(server, number, since):
                print_event(event)
        except KeyboardInterrupt:
            halt(server)
            raise StageError(
                "stopped; complete rounds are saved, and `zk0 server run` goes on from the last one"
            ) from None
    console.print(f"global model in {server.root / 'checkpoints'}", markup=False)


@step("performance monitoring")
def monitor(serving: Serving) -> Outcome:
    """Tell how the model converged, and what each round cost."""
    rows = rounds_so_far(serving.server.root)
    if not rows:
        raise StageError("there is no round to tell of; `zk0 server run` makes them")
    trained = rows[1:] or rows
    best = min(trained, key=lambda row: row.held_out_loss)
    left_out = [f"round {row.round}: {site}, {why}" for row in rows for site, why in row.left_out.items()]
    seconds = [row.round_s for row in trained if row.round_s is not None]
    bytes_up, bytes_down = sum(row.bytes_up for row in rows), sum(row.bytes_down for row in rows)
    start, lowest = rows[0].held_out_loss, best.held_out_loss
    told = [
        f"held-out loss {start:.4f} at the start, {lowest:.4f} in round {best.round}",
        f"{len(rows) - 1} rounds of {sum(seconds) / max(1, len(seconds)):.1f} s, "
        f"{bytes_up / 1e6:.1f} MB up and {bytes_down / 1e6:.1f} MB down",
    ]
    warnings = [*left_out, *(["no round was better than the start"] if lowest >= start else [])]
    return Outcome(False, tuple(told), tuple(warnings), {"best": best.round, "left_out": len(left_out)})


@step("security validation")
def validate_security(serving: Serving) -> Outcome:
    """Look at what protects the federation, and write the checklist.

    Raises:
        StageError: Somebody could get in; lists how, and what to do.
    """
    checks = security_checks(serving.server, serving.params)
    facts = {"checks": [asdict(check) for check in checks]}
    write_json(serving.server.root / SECURITY_REPORT, facts)
    show_checks(checks)
    notes = tuple(f"{c.name}: {c.found}; {c.advice}" for c in checks if not c.passed)
    return Outcome(False, (f"{len(checks)} checks, none failed",), notes, facts)


STEPS: tuple[Step[[Serving], Outcome | None], ...] = (
    initialise,
    select_strategy,
    register,
    run_rounds,
    monitor,
    validate_security,
)


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


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
