"""server: the eight steps of an operator, from services that run to a model that is judged and a checklist."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.checks import Outcome
from zk0.console import console
from zk0.errors import StageError
from zk0.files import write_json
from zk0.network.server import STEPS
from zk0.network.server.services import FederationServer
from zk0.params import PARAMS_FILE, Params, load_params

SECURITY_REPORT = Path("results/security.json")
_POLL_S = 1.0


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
    from zk0.network.server.session import run_to_the_end

    for number, step in enumerate(STEPS, start=1):
        if step in STEPS[4:6]:
            continue
        together = step == STEPS[3]
        title = f"{number} to {number + 2} of 8: {', '.join(STEPS[3:6])}" if together else f"{number} of 8: {step}"
        console.print(title, style="bold", markup=False)
        if together:
            run_to_the_end(serving.server, **serving.settings)
            continue
        outcome = ALONE[step](serving)
        for line in outcome.told:
            console.print(line, markup=False)
        for line in outcome.warnings:
            console.print(f"note: {line}", style="yellow", markup=False)


def initialise(serving: Serving) -> Outcome:
    """Check this machine, start what does not run of the services, and find the starting policy."""
    from zk0.environment import check_environment
    from zk0.network.server.session import lock_policy
    from zk0.pipeline.validate import REPORT, failed_checks

    report = check_environment(serving.params, serving.server.root)
    write_json(serving.server.root / REPORT, report)
    failed_checks(report["checks"])
    policy = lock_policy(serving.server, serving.params)
    started = serving.server.start()
    told = f"started: {', '.join(started)}" if started else "SuperLink, SuperExec and gateway run"
    return Outcome(bool(started), (told, f"starting from {policy['source']} at {policy['digest'][:12]}"))


def select_strategy(serving: Serving) -> Outcome:
    """Say which strategy combines the updates, and refuse one that needs more sites than there are."""
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


def register(serving: Serving) -> Outcome:
    """Have the SuperLink know the admitted sites' keys and no others, and wait for their nodes."""
    from zk0.network.server.roll_call import members_of
    from zk0.network.server.services import present_nodes

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


def monitor(serving: Serving) -> Outcome:
    """Tell how the model converged, and what each round cost."""
    from zk0.records.files import rounds_so_far

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


def validate_security(serving: Serving) -> Outcome:
    """Look at what protects the federation, and write the checklist.

    Raises:
        StageError: Somebody could get in; lists how, and what to do.
    """
    from zk0.network.server.security_checks import security_checks
    from zk0.pipeline.validate import show_checks

    checks = [check.as_dict() for check in security_checks(serving.server, serving.params)]
    write_json(serving.server.root / SECURITY_REPORT, {"checks": checks})
    show_checks(checks)
    notes = tuple(f"{c['name']}: {c['found']}; {c['advice']}" for c in checks if not c["passed"])
    return Outcome(False, (f"{len(checks)} checks, none failed",), notes, {"checks": checks})


# Those that can run by themselves: rounds are the ServerApp's.
ALONE: dict[str, Callable[[Serving], Outcome]] = {
    STEPS[0]: initialise,
    STEPS[1]: select_strategy,
    STEPS[2]: register,
    STEPS[6]: monitor,
    STEPS[7]: validate_security,
}
