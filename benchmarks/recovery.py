"""Every service of a federation killed in a run: seconds until all is well, and whether the model is the same.

``python -m benchmarks.recovery`` brings up a server and two sites on loopback, by what `zk0 deploy` and `zk0 client
join` call, kills one process after the other with SIGKILL, each in a round of its own, and touches nothing else. All is
well when every service runs and answers, every node is there, and a round has ended since. Each round's model is held
against that of the same federation in one process, which nothing disturbs.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.network import joined
from benchmarks.projects import CACHE, ROOT, demo_params, params_of, use_params
from zk0.federation import client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.start import locked_base
from zk0.files import write_text
from zk0.network.client.membership import EVENTS, Membership
from zk0.network.client.node import free_port
from zk0.network.client.status import site_status
from zk0.network.config import DeploymentConfig
from zk0.network.security.files import set_up_security
from zk0.network.server.resume import watch
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer
from zk0.network.server.steps import prepare
from zk0.operations.health import health_checks
from zk0.operations.monitor.snapshot import take
from zk0.operations.start import start_groups, stop_services
from zk0.params import Params
from zk0.records.files import events_so_far, read_rounds, rounds_so_far
from zk0.records.run import Round
from zk0.services.supervise import recorded

SITES = {"kitchen": "sim:push-red-cube-left", "lab": "sim:press-magenta-disc"}
SERVER = (
    "gateway",
    "superlink",
    "superexec",
    "serverapp",
    "mlflow",
    "prefect-server",
    "prefect-worker",
    "monitor",
    "supervisord",
)
SITE = ("trainer", "supernode", "superexec of the site", "supervisord of the site")
_WAIT_S = 600.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Recovery:
    """What became of one kill.

    Attributes:
        kind: What was killed.
        back_s: Seconds until every service ran and answered, and every node was there.
        round_s: Seconds until the round that it disturbed was complete.
        same: Whether that round's model is the undisturbed run's.
    """

    kind: str
    back_s: float
    round_s: float
    same: bool


@dataclass(frozen=True)
class Federation:
    """A server and its sites, up and connected."""

    server: FederationServer
    config: DeploymentConfig
    sites: list[Membership]

    def process(self, kind: str) -> psutil.Process:
        """The process that is of a kind; a site's is the first site's."""
        of_site = kind.endswith(" of the site") or kind in SITE
        services = self.sites[0].services if of_site else self.server.services
        name = kind.removesuffix(" of the site")
        if name == "supervisord":
            found = recorded(services.folder / "supervisor" / "supervisord.json")
        elif name == "serverapp":
            children = services.running()["superexec"].children(recursive=True)
            living = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
            found = next((one for one in living if "serverapp" in " ".join(one.cmdline())), None)
        else:
            found = services.running().get(name)
        if found is None:
            raise RuntimeError(f"no {kind} is running")
        return found

    def well(self) -> bool:
        """Whether every service runs and answers, and every node is there."""
        snapshot = take(self.server.root, self.config)
        checks = health_checks(self.server.root, self.config, snapshot)
        served = all(check.passed for check in checks if check.name.startswith(("service ", "site ")))
        return served and all(site_status(one).connected for one in self.sites)

    def rounds(self) -> dict[int, Round]:
        """The complete rounds so far, by their number."""
        return {one.round: one for one in rounds_so_far(self.server.root)}


@contextmanager
def federation(folder: Path, params: Params, services: Sequence[str]) -> Iterator[Federation]:
    """A server and two sites in a folder; all of it down at the end."""
    operator = folder / "operator"
    use_params(operator, params)
    for name in ("prefect.yaml", "flows", "tasks"):
        (operator / name).symlink_to(ROOT / name)
    config = _config(operator, services)
    set_up_security(operator / "security", ["127.0.0.1"], "recovery")
    server, members = FederationServer(operator), []
    with ExitStack() as stack:
        stack.callback(stop_services, operator)
        start_groups(operator, config, config.services)
        for name, task in SITES.items():
            use_params(folder / name, params)
            members.append(joined(stack, server, folder / name, name, task, params.threads))
        yield Federation(server, config, members)


def _config(root: Path, services: Sequence[str]) -> DeploymentConfig:
    ports = {name: free_port() for name in ("gateway", "superlink", "gateway_metrics", "monitor")}
    urls = {f"{name}_url": f"http://127.0.0.1:{free_port()}" for name in ("mlflow", "prefect")}
    alerts = {"every_s": 1.0, "disk_free_bytes": 0}
    content = {"listen": "127.0.0.1", "services": list(services), "ports": ports, **urls, "alerts": alerts}
    write_text(root / "deployment.yaml", yaml.safe_dump(content))
    return DeploymentConfig.parse(content)


def measure(folder: Path, params: Params, kinds: Sequence[str], services: Sequence[str]) -> list[Recovery]:
    """Kill each kind in a round of its own, while one run goes on; its first and last rounds are left alone.

    Args:
        folder: Empty; everything goes there.
        params: Of the run; as many rounds are made as there are kinds, and two.
        kinds: What is killed, in this order: of ``SERVER`` and ``SITE``.
        services: Groups that the server starts.
    """
    federation_of = params.federation.model_copy(update={"rounds": len(kinds) + 2})
    params = params.model_copy(update={"federation": federation_of})
    with federation(folder, params, services) as made:
        _await(made.well, "everything up")
        run = threading.Thread(target=_run, args=(made.server,), daemon=True)
        run.start()
        times = {kind: _killed(made, kind, number) for number, kind in enumerate(kinds, start=2)}
        _await(lambda: len(made.rounds()) == len(kinds) + 3, "the last round")
        run.join(_WAIT_S)
        rounds, wanted = made.rounds(), _undisturbed(made, folder / "undisturbed")
    return [
        Recovery(kind, *times[kind], rounds[number].digest == wanted[number])
        for number, kind in enumerate(kinds, start=2)
    ]


def _run(server: FederationServer) -> None:
    prepare(server)
    list(watch(server, submit(server, wait_s=120.0)))


def _killed(made: Federation, kind: str, number: int) -> tuple[float, float]:
    """Kill a process when a round has begun, and wait until all is well."""
    _await(lambda: number - 1 in made.rounds() and _training(made.sites[0], number), f"round {number}")
    process, began = made.process(kind), time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    _await(lambda: not psutil.pid_exists(process.pid) or process.status() == psutil.STATUS_ZOMBIE, f"the end of {kind}")
    _await(lambda: _again(made, kind, process.pid) and made.well(), f"{kind} is back and all is well")
    back = time.monotonic() - began
    _await(lambda: number in made.rounds(), f"the end of round {number}")
    return back, time.monotonic() - began


def _training(site: Membership, number: int) -> bool:
    """Whether a site has got its task of a round."""
    events = events_so_far(site.folder / EVENTS)
    return any(one.event == "received" and one.round == number and "train" in str(one.message) for one in events)


def _again(made: Federation, kind: str, before: int) -> bool:
    """Whether there is another process of a kind; a ServerApp may have done its work by then."""
    try:
        return made.process(kind).pid != before
    except (RuntimeError, KeyError, psutil.NoSuchProcess):
        return False


def _undisturbed(made: Federation, root: Path) -> dict[int, str | None]:
    """Each round's digest of the same federation in one process, over the same data."""
    params = params_of(made.server.root)
    root.mkdir()
    shutil.copy(made.server.root / "sources.lock.json", root)
    for site in made.sites:
        shutil.copytree(site.folder / "data", root / "data", dirs_exist_ok=True, symlinks=True)
    grid = InProcessGrid(client_app.app, root, len(made.sites), params.data.decoded_limit_bytes)
    run_federation(grid, root, params, locked_base(root))
    return {one.round: one.digest for one in read_rounds(root)}


def _await(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {_WAIT_S:.0f} s")
        time.sleep(_POLL_S)


def table(found: Sequence[Recovery]) -> str:
    """As docs/RELIABILITY.md has it."""
    lines = ["| killed | everything answers after | the round is complete after | the same model |", 4 * "| --- " + "|"]
    for one in found:
        same = "yes" if one.same else "no"
        lines.append(f"| {one.kind} | {one.back_s:.1f} s | {one.round_s:.1f} s | {same} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all kinds on the demo's policy, and print the table."""
    params = demo_params(training={"local_steps": 20, "batch": 8}, data={"episodes": 4}, evaluation={"loss_draws": 1})
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recovery-", dir=CACHE) as folder:
        found = measure(
            Path(folder).resolve(), params, (*SERVER, *SITE), ("mlflow", "prefect", "federation", "monitor")
        )
    print(table(found))


if __name__ == "__main__":
    main()
