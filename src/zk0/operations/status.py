"""`zk0 status`: a deployment on one screen, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from zk0.console import folded_table
from zk0.network.config import CONFIG, DeploymentConfig
from zk0.operations.health import is_there, told_of
from zk0.operations.monitor.alerts import AlertBook, find_alerts
from zk0.operations.monitor.progress import Progress
from zk0.operations.monitor.service import BOOK
from zk0.operations.monitor.snapshot import SiteState, take


class Service(TypedDict):
    """A service, as it is shown; see :class:`ServiceState`."""

    name: str
    wanted: bool
    up: bool
    since: str | None
    memory_bytes: int
    given_up: bool


class ShownSite(TypedDict):
    """A site, as it is shown; see :class:`SiteState`."""

    name: str
    partition: int
    state: str
    there: bool
    told: str
    seen: str | None
    bytes_up: int
    bytes_down: int


class ShownRun(TypedDict):
    """A run, as it is shown; see :class:`Progress`."""

    run: str
    active: bool
    failed_round: int | None
    round: int
    round_ended: str | None
    train_loss: float | None
    held_out_loss: float | None
    bytes_up: int
    bytes_down: int
    left_out: list[dict[str, int | str]]


class Certificate(TypedDict):
    """A certificate, as it is shown."""

    name: str
    expires: str
    days_left: int
    state: str


class ShownAlert(TypedDict):
    """An alert, with its beginning as a date."""

    rule: str
    subject: str
    summary: str
    severity: str
    since: str | None


class Overview(TypedDict):
    """A deployment, as `zk0 status` shows it."""

    at: str | None
    federation: str
    services: list[Service]
    sites: list[ShownSite]
    run: ShownRun | None
    certificates: list[Certificate]
    disk_free_bytes: int
    alerts: list[ShownAlert]
    problem: str


def overview(root: Path) -> Overview:
    """Everything that `zk0 status` shows; without a deployment whatever runs here, and a federation without a name.

    Raises:
        StageError: deployment.yaml is wrong.
    """
    deployed = (root / CONFIG).exists()
    config = DeploymentConfig.read(root / CONFIG) if deployed else DeploymentConfig(services=(), prefect_url=None)
    snapshot = take(root, config)
    known = {alert.key: alert for alert in AlertBook(root / BOOK).open}  # since when, where a monitor has noted it
    alerts = [known.get(alert.key, alert) for alert in find_alerts(snapshot, config.alerts)]
    return {
        "at": _iso(snapshot.at),
        "federation": config.federation if deployed else "",
        "services": [
            {
                "name": one.name,
                "wanted": one.wanted,
                "up": one.up,
                "since": _iso(one.since),
                "memory_bytes": one.memory_bytes,
                "given_up": one.given_up,
            }
            for one in snapshot.services
        ],
        "sites": [_site(state, snapshot.at) for state in snapshot.sites],
        "run": _run(snapshot.progress) if snapshot.progress else None,
        "certificates": [
            {"name": one.name, "expires": one.expires.isoformat(), "days_left": one.days_left, "state": one.state}
            for one in snapshot.certificates
        ],
        "disk_free_bytes": snapshot.disk_free_bytes,
        "alerts": [
            {
                "rule": one.rule,
                "subject": one.subject,
                "summary": one.summary,
                "severity": one.severity,
                "since": _iso(one.since),
            }
            for one in alerts
        ],
        "problem": snapshot.problem,
    }


def _site(state: SiteState, now: float) -> ShownSite:
    site = state.site
    return {
        "name": site.name,
        "partition": site.partition,
        "state": site.state,
        "there": site.admitted and is_there(state, now),
        "told": told_of(state, now) if site.admitted else site.why,
        "seen": _iso(state.seen),
        "bytes_up": state.sent,
        "bytes_down": state.received,
    }


def _run(progress: Progress) -> ShownRun:
    last = progress.rows[-1] if progress.rows else None
    return {
        "run": progress.run,
        "active": progress.active,
        "failed_round": progress.failed,
        "round": progress.round,
        "round_ended": _iso(progress.round_ended),
        "train_loss": last.train_loss if last else None,
        "held_out_loss": last.held_out_loss if last else None,
        "bytes_up": sum(ways["up"] for ways in progress.bytes.values()),
        "bytes_down": sum(ways["down"] for ways in progress.bytes.values()),
        "left_out": [asdict(one) for one in progress.left_out],
    }


def render(seen: Overview) -> Iterator[RenderableType]:
    """The overview for a terminal."""
    if seen["federation"]:
        yield f"[bold]federation {escape(seen['federation'])}[/] at {seen['at']}"
    else:
        yield "no deployment here: `zk0 deploy init --host NAME` writes deployment.yaml, `zk0 deploy` brings it up"
    yield _services(seen["services"]) if seen["services"] else "services: none run; `zk0 up` starts Prefect's alone"
    if seen["sites"]:
        yield _sites(seen["sites"])
    yield _told_run(seen["run"])
    ends = [f"{one['name']} {one['days_left']} days ({one['state']})" for one in seen["certificates"]]
    if ends or seen["federation"]:
        yield f"certificates: {', '.join(ends) or 'none; `zk0 deploy` makes them'}"
    yield f"disk: {seen['disk_free_bytes'] / 1e9:.1f} GB free"
    if seen["problem"]:
        yield f"[yellow]{escape(seen['problem'])}[/]"
    if not seen["alerts"]:
        yield "alerts: none"
    for alert in seen["alerts"]:
        colour = "red" if alert["severity"] == "critical" else "yellow"
        yield f"[{colour}]alert {alert['rule']}: {escape(alert['summary'])}[/] (since {alert['since']})"


def _services(services: list[Service]) -> Table:
    table = folded_table(("service", "", "since", "memory"))
    for one in services:
        verdict = "[green]up" if one["up"] else "[red]given up" if one["given_up"] else "down"
        verdict = "[red]down" if one["wanted"] and verdict == "down" else verdict
        memory = f"{one['memory_bytes'] / 1e6:.0f} MB" if one["up"] else ""
        table.add_row(one["name"], verdict, one["since"] or "", memory)
    return table


def _sites(sites: list[ShownSite]) -> Table:
    table = folded_table(("site", "number", "", "", "sent", "received"))
    for one in sites:
        verdict = "[green]there" if one["there"] else "[yellow]away" if one["state"] == "admitted" else "revoked"
        moved = [f"{one[way] / 1e6:.1f} MB" for way in ("bytes_up", "bytes_down")]
        table.add_row(one["name"], str(one["partition"]), verdict, escape(one["told"]), *moved)
    return table


def _told_run(run: ShownRun | None) -> str:
    if run is None:
        return "run: none yet"
    state = (
        "on" if run["active"] else "ended" if run["failed_round"] is None else f"failed in round {run['failed_round']}"
    )
    told = f"run {run['run']}: {state}, round {run['round']} ended {run['round_ended']}"
    if run["held_out_loss"] is not None:
        told += f", held-out loss {run['held_out_loss']:.4f}"
    moved = f", {run['bytes_up'] / 1e6:.1f} MB up, {run['bytes_down'] / 1e6:.1f} MB down"
    return told + moved + f", {len(run['left_out'])} replies left out"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
