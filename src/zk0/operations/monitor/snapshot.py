"""What a deployment is at one moment: services, sites, the run, certificates and disk; read anew each time."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from zk0.errors import StageError
from zk0.network.config import GROUPS, DeploymentConfig
from zk0.network.security.authority import Expiry, expiries
from zk0.network.security.files import SECURITY, Places
from zk0.network.security.sites import Site, SiteRegistry
from zk0.network.server.wanted import given_up
from zk0.operations.monitor.progress import Progress, read_progress
from zk0.services.process import RUN, Services
from zk0.services.supervise import family_of

_ANSWER_S = 2.0


@dataclass(frozen=True)
class ServiceState:
    """One service of this machine.

    Attributes:
        name: As `zk0 logs` and `zk0 restart` take it.
        wanted: Whether deployment.yaml names it.
        since: When it was started, in seconds since 1970; None where it does not run.
        memory_bytes: Resident, with all that it started.
        given_up: Whether it died so often that it is not started again.
        died: When it died last and was started again by itself, in seconds since 1970; None where it never did.
    """

    name: str
    wanted: bool
    since: float | None
    memory_bytes: int = 0
    given_up: bool = False
    died: float | None = None

    @property
    def up(self) -> bool:
        """Whether its process is alive."""
        return self.since is not None


@dataclass(frozen=True)
class SiteState:
    """One site of the federation.

    Attributes:
        site: As the list has it.
        seen: Its last request to the gateway, in seconds since 1970; None where there was none since the gateway began.
        sent: Bytes that it sent since then.
        received: Bytes that it got.
    """

    site: Site
    seen: float | None
    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A deployment at one moment.

    Attributes:
        at: When, in seconds since 1970.
        services: Those that are wanted or run.
        sites: All of the list, by number; none where there is no list.
        gateway_since: Since when the gateway has watched the sites; None where it does not answer.
        progress: Of the last run.
        certificates: The first to end first; none where there is no authority.
        disk_free_bytes: On the project's disk.
        problem: What could not be read, in words; empty where all could.
        run_given_up: Whether a run was interrupted so often that it is not taken up any more.
    """

    at: float
    services: tuple[ServiceState, ...]
    sites: tuple[SiteState, ...]
    gateway_since: float | None
    progress: Progress | None
    certificates: tuple[Expiry, ...]
    disk_free_bytes: int
    problem: str = ""
    run_given_up: bool = False


def take(root: Path, config: DeploymentConfig) -> Snapshot:
    """Look at everything; what cannot be read is told as the snapshot's problem."""
    places = Places(root / SECURITY)
    services = service_states(root, config)
    gateway = next((s.since for s in services if s.name == "gateway"), None)
    seen = gateway_metrics(config.ports.gateway_metrics) if gateway is not None else None
    problems: list[str] = []
    registered: tuple[Site, ...] = ()
    certificates: tuple[Expiry, ...] = ()
    if places.folder.exists():
        try:
            registered = SiteRegistry(places.registry).sites()
            certificates = tuple(expiries(places.authority))
        except StageError as error:
            problems.append(str(error))
    if gateway is not None and seen is None:
        problems.append(f"the gateway's metrics on port {config.ports.gateway_metrics} do not answer")
    return Snapshot(
        at=time.time(),
        services=services,
        sites=tuple(_site_state(site, seen or {}) for site in registered),
        gateway_since=gateway if seen is not None else None,
        progress=read_progress(root),
        certificates=certificates,
        disk_free_bytes=shutil.disk_usage(root).free,
        problem="; ".join(problems),
        run_given_up=given_up(root),
    )


def service_states(root: Path, config: DeploymentConfig) -> tuple[ServiceState, ...]:
    """The services of this machine, those first that the others need."""
    services = Services(root / RUN)
    running, given_up = services.running(), services.given_up()
    wanted = [name for group in config.services for name in GROUPS[group]]
    ordered = [name for names in GROUPS.values() for name in names if name in wanted or name in running]
    ordered += [name for name in running if name not in ordered]
    return tuple(
        ServiceState(
            name,
            name in wanted,
            running[name].create_time(),
            _memory(running[name]),
            died=services.last_death(name),
        )
        if name in running
        else ServiceState(name, name in wanted, None, given_up=name in given_up)
        for name in ordered
    )


def gateway_metrics(port: int) -> dict[tuple[str, ...], float] | None:
    """What the gateway counts of sites: ``(metric, site)`` and ``(metric, site, direction)`` to the value.

    Returns:
        None where it does not answer.
    """
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=_ANSWER_S, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError:
        return None
    return {
        tuple(x for x in (sample.name, sample.labels["site"], sample.labels.get("direction")) if x): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if "site" in sample.labels
    }


def _site_state(site: Site, metrics: dict[tuple[str, ...], float]) -> SiteState:
    moved = {way: int(metrics.get(("zk0_gateway_bytes_total", site.name, way), 0)) for way in ("up", "down")}
    seen = metrics.get(("zk0_gateway_site_seen_timestamp_seconds", site.name))
    return SiteState(site, seen, moved["up"], moved["down"])


def _memory(process: psutil.Process) -> int:
    total = 0
    for one in family_of([process]):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total
