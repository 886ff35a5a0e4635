"""Health checks of a deployment: every service answers, certificates last, there is disk, and sites are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from zk0.checks import Check
from zk0.network.config import DeploymentConfig
from zk0.network.server.services import FederationServer
from zk0.operations.monitor.snapshot import SiteState, Snapshot
from zk0.services.process import answers

# A node asks for work every 3 s.
LIVELY_S = 20.0


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
    for service in snapshot.services:
        if not service.wanted:
            continue
        name = service.name
        probe = {
            "mlflow": lambda: answers(f"{urls['mlflow']}/health"),
            "server": lambda: answers(f"{urls['prefect']}/api/health"),
            "worker": lambda: True,  # has no door of its own
            "superexec": lambda: True,  # neither has it
            "superlink": lambda: server.answers(f"https://{config.superlink}"),
            "gateway": lambda: server.answers(server.gateway_url),
            "monitor": lambda: answers(f"http://127.0.0.1:{ports.monitor}/metrics"),
        }[name]
        well = service.up and probe()
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
        soon = one.days_left < config.alerts.certificate_days
        yield Check(
            f"certificate of {one.name}",
            not soon,
            f"{one.days_left} days left",
            f"{config.alerts.certificate_days} days or more",
            "`zk0 security rotate`, then `zk0 restart superlink`"
            if one.name != "authority"
            else "make a new authority, and send every site a new invitation",
            "error" if one.days_left < 0 else "warning",
        )


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
        yield (trips or {}).get(state.site.name) or Check(
            f"site {state.site.name}",
            is_there(state, snapshot.at),
            told_of(state, snapshot.at),
            f"a signed request within {LIVELY_S:.0f} s",
            "have its owner look at `zk0 client status`",
            "warning",
        )


def is_there(state: SiteState, now: float) -> bool:
    """Whether a site's node asked for work just now."""
    return state.seen is not None and now - state.seen < LIVELY_S


def told_of(state: SiteState, now: float) -> str:
    """When a site was last there, in words."""
    if state.seen is None:
        return "not seen since the gateway began"
    silent = now - state.seen
    return f"seen {silent:.0f} s ago" if silent < 120 else f"seen {silent / 60:.0f} min ago"
