"""`zk0 status`: a deployment on one screen, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from zk0.network.config import CONFIG, DeploymentConfig
from zk0.operations.health import is_there, told_of
from zk0.operations.monitor.alerts import AlertBook, find_alerts
from zk0.operations.monitor.progress import Progress
from zk0.operations.monitor.service import BOOK
from zk0.operations.monitor.snapshot import SiteState, take


def overview(root: Path) -> dict[str, Any]:
    """Everything that `zk0 status` shows.

    Raises:
        StageError: deployment.yaml is missing or wrong.
    """
    config = DeploymentConfig.read(root / CONFIG)
    snapshot = take(root, config)
    known = {alert.key: alert for alert in AlertBook(root / BOOK).open}  # since when, where a monitor has noted it
    alerts = [known.get(alert.key, alert) for alert in find_alerts(snapshot, config.alerts)]
    return {
        "at": _iso(snapshot.at),
        "federation": config.federation,
        "services": [
            {name: getattr(one, name) for name in ("name", "wanted", "up", "since", "memory_bytes", "given_up")}
            | {"since": _iso(one.since)}
            for one in snapshot.services
        ],
        "sites": [_site(state, snapshot.at) for state in snapshot.sites],
        "run": _run(snapshot.progress) if snapshot.progress else None,
        "certificates": [
            {"name": one.name, "expires": one.expires.isoformat(), "days_left": one.days_left, "state": one.state}
            for one in snapshot.certificates
        ],
        "disk_free_bytes": snapshot.disk_free_bytes,
        "alerts": [alert.as_dict() | {"since": _iso(alert.since)} for alert in alerts],
        "problem": snapshot.problem,
    }


def _site(state: SiteState, now: float) -> dict[str, Any]:
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


def _run(progress: Progress) -> dict[str, Any]:
    last = progress.rows[-1] if progress.rows else None
    return {
        "run": progress.run,
        "active": progress.active,
        "failed_round": progress.failed,
        "round": progress.round,
        "round_ended": _iso(progress.round_ended),
        "train_loss": last and last.train_loss,
        "held_out_loss": last and last.held_out_loss,
        "bytes_up": sum(ways["up"] for ways in progress.bytes.values()),
        "bytes_down": sum(ways["down"] for ways in progress.bytes.values()),
        "left_out": [asdict(one) for one in progress.left_out],
    }


def render(seen: dict[str, Any]) -> Iterator[RenderableType]:
    """The overview for a terminal."""
    yield f"[bold]federation {escape(seen['federation'])}[/] at {seen['at']}"
    yield _services(seen["services"])
    if seen["sites"]:
        yield _sites(seen["sites"])
    yield _told_run(seen["run"])
    ends = [f"{one['name']} {one['days_left']} days ({one['state']})" for one in seen["certificates"]]
    yield f"certificates: {', '.join(ends) or 'none; `zk0 deploy` makes them'}"
    yield f"disk: {seen['disk_free_bytes'] / 1e9:.1f} GB free"
    if seen["problem"]:
        yield f"[yellow]{escape(seen['problem'])}[/]"
    if not seen["alerts"]:
        yield "alerts: none"
    for alert in seen["alerts"]:
        colour = "red" if alert["severity"] == "critical" else "yellow"
        yield f"[{colour}]alert {alert['rule']}: {escape(alert['summary'])}[/] (since {alert['since']})"


def _services(services: list[dict[str, Any]]) -> Table:
    table = Table("service", "", "since", "memory")
    for one in services:
        verdict = "[green]up" if one["up"] else "[red]given up" if one["given_up"] else "down"
        verdict = "[red]down" if one["wanted"] and verdict == "down" else verdict
        memory = f"{one['memory_bytes'] / 1e6:.0f} MB" if one["up"] else ""
        table.add_row(one["name"], verdict, one["since"] or "", memory)
    return table


def _sites(sites: list[dict[str, Any]]) -> Table:
    table = Table("site", "number", "", "", "sent", "received")
    for one in sites:
        verdict = "[green]there" if one["there"] else "[yellow]away" if one["state"] == "admitted" else "revoked"
        moved = [f"{one[way] / 1e6:.1f} MB" for way in ("bytes_up", "bytes_down")]
        table.add_row(one["name"], str(one["partition"]), verdict, escape(one["told"]), *moved)
    return table


def _told_run(run: dict[str, Any] | None) -> str:
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
