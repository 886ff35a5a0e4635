"""Health checks of a deployment: every service answers, certificates last, there is disk, and sites are there.

Whether a site is there, a message to each can tell, by a run of its own: gateway, SuperLink, node, ClientApp, trainer,
and back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from zk0.checks import Check
from zk0.errors import StageError
from zk0.federation import protocol
from zk0.federation.flower import HttpGrid
from zk0.files import read_json, write_json
from zk0.network.config import DeploymentConfig
from zk0.network.security.files import Places
from zk0.network.security.sites import SiteRegistry
from zk0.network.server.grid import NetworkGrid
from zk0.network.server.runs import submit
from zk0.network.server.services import FederationServer, halt, runs_of
from zk0.operations.monitor.snapshot import SiteState, Snapshot
from zk0.services.process import RUN, answers

# A node asks for work every 3 s.
LIVELY_S = 20.0
# A message to each site is a run of its own.
SERVER_APP = "zk0.operations.health:app"
NAME = "zk0-health"
FOUND = RUN / "health" / "round-trip.json"
_WAIT_S = 60.0
_START_S = 60.0  # for the ServerApp's process
_POLL_S = 0.5

app = ServerApp()


def health_checks(
    root: Path, config: DeploymentConfig, snapshot: Snapshot, trips: Mapping[str, Check] | None = None
) -> list[Check]:
    """What of a deployment is well, and what is not.

    Args:
        root: Project folder.
        config: What is wanted.
        snapshot: What is there.
        trips: What became of a message to each site; None where none was sent, and its last request is what counts.
    """
    return [
        *_services(root, config, snapshot),
        *_elsewhere(config),
        *_certificates(config, snapshot),
        _disk(config, snapshot),
        *_sites(config, snapshot, trips),
    ]


def _services(root: Path, config: DeploymentConfig, snapshot: Snapshot) -> Iterator[Check]:
    server, ports, urls = FederationServer(root), config.ports, config.local_urls()
    probes: dict[str, Callable[[], bool]] = {  # worker and SuperExec have no door of their own
        "mlflow": lambda: answers(f"{urls['mlflow']}/health"),
        "prefect-server": lambda: answers(f"{urls['prefect']}/api/health"),
        "superlink": lambda: server.answers(f"https://{config.superlink}"),
        "gateway": lambda: server.answers(server.gateway_url),
        "monitor": lambda: answers(f"http://127.0.0.1:{ports.monitor}/metrics"),
    }
    for service in snapshot.services:
        if not service.wanted:
            continue
        name = service.name
        well = service.up and (name not in probes or probes[name]())
        found = "answers" if well else "runs, and does not answer" if service.up else "does not run"
        advice = f"`zk0 logs {name}`, then `zk0 restart {name}`"
        yield Check(f"service {name}", well, found, "runs and answers", advice)


def _elsewhere(config: DeploymentConfig) -> Iterator[Check]:
    for group, url, path in (
        ("mlflow", config.mlflow_url, "/health"),
        ("prefect", config.prefect_url, "/api/health"),
    ):
        if url is None or group in config.services:
            continue
        well = answers(url + path)
        yield Check(
            f"{group} elsewhere",
            well,
            "answers" if well else "does not answer",
            f"{group}_url of deployment.yaml answers",
            f"start it there, or set {group}_url to null; a federation goes on without it",
            "warning",
        )


def _certificates(config: DeploymentConfig, snapshot: Snapshot) -> Iterator[Check]:
    for one in snapshot.certificates:
        renew = "`zk0 security rotate`, then `zk0 restart superlink`"
        anew = "make a new authority, and send every site a new invitation"
        yield one.check(config.alerts.certificate_days, anew if one.name == "authority" else renew)


def _disk(config: DeploymentConfig, snapshot: Snapshot) -> Check:
    least = config.alerts.disk_free_bytes
    return Check(
        "disk",
        snapshot.disk_free_bytes >= least,
        f"{snapshot.disk_free_bytes / 1e9:.1f} GB free",
        f"{least / 1e9:g} GB or more",
        "`zk0 features clean` and `dvc gc --workspace` make room",
        "warning",
    )


def _sites(config: DeploymentConfig, snapshot: Snapshot, trips: Mapping[str, Check] | None) -> Iterator[Check]:
    if "federation" not in config.services:
        return
    admitted = [state for state in snapshot.sites if state.site.admitted]
    if not admitted:
        yield Check(
            "sites",
            False,
            "none is admitted",
            "at least one",
            "`zk0 site admit NAME PUBKEY --server HOST:PORT`",
            "warning",
        )
    for state in admitted:
        name, well, found = state.site.name, is_there(state, snapshot.at), told_of(state, snapshot.at)
        expected = f"a signed request within {LIVELY_S:.0f} s"
        yield (trips or {}).get(name) or _site_check(name, well, found, expected)


def _site_check(name: str, well: bool, found: str, expected: str) -> Check:
    advice = "have its owner look at `zk0 client status`"
    return Check(f"site {name}", well, found, expected, advice, "warning")


def is_there(state: SiteState, now: float) -> bool:
    """Whether a site's node asked for work just now."""
    return state.seen is not None and now - state.seen < LIVELY_S


def told_of(state: SiteState, now: float) -> str:
    """When a site was last there, in words."""
    if state.seen is None:
        return "not seen since the gateway began"
    silent = now - state.seen
    return f"seen {silent:.0f} s ago" if silent < 120 else f"seen {silent / 60:.0f} min ago"


class _Reply(TypedDict):
    """What became of a message to a site: after how many seconds it replied, and what was wrong."""

    problem: str
    seconds: NotRequired[float]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every admitted site for the summary of its data, as a run's roll call does, and write down what came back."""
    settings = context.run_config
    root = Path(str(settings["project"])).resolve()
    registry = SiteRegistry(Places(root / str(settings["security"])).registry)
    sites = {site.node_id: site for site in registry.sites() if site.admitted and site.node_id is not None}
    network = NetworkGrid(cast(HttpGrid, grid), list(sites), sites.__contains__)
    messages = []
    for node, site in sites.items():
        content = RecordDict()
        protocol.write(content, protocol.Header(run="", round=0, partition=site.partition))
        messages.append(Message(content, node, protocol.SUMMARY, group_id="0"))
    found: dict[str, _Reply] = {site.name: {"problem": "no reply in time"} for site in sites.values()}
    began = time.monotonic()
    for reply in network.send_and_receive(messages, timeout=float(cast(float, settings["wait-s"]))):
        site = sites[reply.metadata.src_node_id]
        problem = protocol.failure(reply, site.name) if reply.has_error() else ""
        found[site.name] = {"seconds": round(time.monotonic() - began, 2), "problem": problem}
    write_json(root / FOUND, found)


def round_trips(server: FederationServer, wait_s: float = _WAIT_S) -> dict[str, Check]:
    """Send each admitted site a message, and wait for the replies.

    Args:
        server: Its services are running, and no run is in progress.
        wait_s: How long sites may take.

    Returns:
        By site, whether it answered: in how many seconds, or why not.

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
    return {
        name: _site_check(
            name, not one["problem"], one["problem"] or f"answered a message in {one['seconds']:.1f} s", "a reply"
        )
        for name, one in read_json(file).items()
    }
