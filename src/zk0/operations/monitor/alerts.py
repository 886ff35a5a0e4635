"""Alerts: what is worth waking somebody, found in a snapshot, told once when it begins and once when it is over:
to a webhook, and to Prefect as events that its automations can act on.

An alert's words are made of names, numbers and times only. Whatever sites or libraries say stays in the logs, since
it may hold anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.network.config import GROUPS, Alerts, is_loopback
from zk0.operations.monitor.progress import UNFIT
from zk0.operations.monitor.snapshot import ServiceState, Snapshot
from zk0.private_files import read_private

EVENT = "zk0.alert"
_TIMEOUT_S = 10.0
# A service that died counts as down for so long, though it is back: no death falls between two looks, and one that dies
# over and over is one alert and not many.
STEADY_S = 15.0
logger = logging.getLogger("zk0.monitor")
# In the order in which they are told.
RULES = (
    "no-round",
    "failed-round",
    "site-unfit",
    "site-away",
    "certificate",
    "disk",
    "service-down",
    "service-given-up",
    "run-given-up",
)


@dataclass(frozen=True)
class Alert:
    """Something that is wrong.

    Attributes:
        rule: Which rule found it; see :data:`RULES`.
        subject: What it is about: a site, a service, a certificate, a run and its round.
        summary: In words.
        severity: ``critical`` where the federation stands still or soon will, else ``warning``.
        since: When it was first found, in seconds since 1970.
    """

    rule: str
    subject: str
    summary: str
    severity: Literal["warning", "critical"] = "warning"
    since: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """By what the same occurrence is known again."""
        return self.rule, self.subject


def find_alerts(snapshot: Snapshot, limits: Alerts) -> list[Alert]:
    """Everything that is wrong at one moment."""
    found = (*_of_run(snapshot, limits), *_of_sites(snapshot, limits), *_of_machine(snapshot, limits))
    return sorted((replace(alert, since=snapshot.at) for alert in found), key=lambda alert: RULES.index(alert.rule))


def _of_run(snapshot: Snapshot, limits: Alerts) -> Iterator[Alert]:
    if snapshot.run_given_up:
        why = "its server died again and again within a round, so that the run is not taken up any more"
        yield Alert("run-given-up", "run", f"{why}: `zk0 server run` goes on from its last complete round", "critical")
    progress = snapshot.progress
    if progress is None:
        return
    if progress.active and snapshot.at - progress.round_ended > limits.round_s:
        about = f"run {progress.run} after round {progress.round}"
        told = f"a run is on, and no round has ended for more than {limits.round_s / 60:.0f} min"
        yield Alert("no-round", about, told, "critical")
    if progress.failed is not None:
        names = sorted({f"{one.site} ({one.kind})" for one in progress.left_out if one.round == progress.failed})
        left_out = f"; left out: {', '.join(names)}" if names else ""
        about = f"run {progress.run} round {progress.failed}, failure {progress.failures}"
        told = f"round {progress.failed} could not be completed{left_out}. Complete rounds are saved"
        yield Alert("failed-round", about, told, "critical")
    for one in progress.left_out:
        if one.kind == UNFIT:
            told = f"the data of {one.site} is not fit, and the run goes on without it: results/data.json says why"
            yield Alert("site-unfit", f"site {one.site}", told)


def _of_sites(snapshot: Snapshot, limits: Alerts) -> Iterator[Alert]:
    admitted = [state for state in snapshot.sites if state.site.admitted]
    for state in admitted if snapshot.gateway_since is not None else ():
        if snapshot.at - max(state.seen or 0.0, snapshot.gateway_since or 0.0) > limits.site_away_s:
            told = f"site {state.site.name} has asked for nothing for more than {limits.site_away_s / 60:g} min"
            yield Alert("site-away", f"site {state.site.name}", told)


def _of_machine(snapshot: Snapshot, limits: Alerts) -> Iterator[Alert]:
    for one in snapshot.certificates:
        if one.days_left < limits.certificate_days:
            ended = one.days_left < 0
            about = f"certificate of {one.name} until {one.expires:%Y-%m-%d}"
            told = f"the certificate of {one.name} {'has ended' if ended else 'ends'} on {one.expires:%d %B %Y}"
            yield Alert("certificate", about, told, "critical" if ended else "warning")
    if snapshot.disk_free_bytes < limits.disk_free_bytes:
        yield Alert("disk", "disk", f"less than {limits.disk_free_bytes / 1e9:g} GB of disk are free", "critical")
    for service in snapshot.services:
        # Whoever looks is the monitor. It may look before its start is recorded.
        if service.wanted and service.name != "monitor":
            if not service.up:
                yield _of_service(service, "service-down", "does not run")
            elif service.died is not None and snapshot.at - service.died < max(STEADY_S, 2 * limits.every_s):
                yield _of_service(service, "service-down", "died, and was started again")
        if service.given_up:
            again = f"`zk0 logs {service.name}`, then `zk0 restart {service.name}`"
            yield _of_service(service, "service-given-up", f"died too often and is not started again: {again}")


def _of_service(service: ServiceState, rule: str, why: str) -> Alert:
    stops = service.name in GROUPS["federation"]
    told = f"{service.name} {why}" + ("" if stops else "; a federation goes on without it")
    return Alert(rule, f"service {service.name}", told, "critical" if stops else "warning")


@dataclass(frozen=True)
class Message:
    """What is to be told of an alert: that it began, or that it is over.

    Attributes:
        alert: Which.
        status: ``firing`` or ``resolved``.
    """

    alert: Alert
    status: Literal["firing", "resolved"]


class AlertBook:
    """Which alerts are open and what has been told of them, in a file: a monitor started again tells nothing twice.

    Args:
        path: The file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = read_json(path)
        except (FileNotFoundError, ValueError):  # a new book; of a damaged one the worst is that alerts are told again
            content = {"open": [], "to_tell": []}
        self._open = {alert.key: alert for alert in (Alert(**one) for one in content["open"])}
        self._to_tell = [Message(Alert(**one["alert"]), one["status"]) for one in content["to_tell"]]

    @property
    def open(self) -> tuple[Alert, ...]:
        """Alerts that hold now, the oldest first; none where there is no book."""
        return tuple(sorted(self._open.values(), key=lambda alert: alert.since))

    def note(self, found: list[Alert]) -> list[Message]:
        """Take what was found now; an alert that was open keeps its beginning.

        Returns:
            What is new, to be told.
        """
        present = {alert.key: self._open.get(alert.key, alert) for alert in found}
        news = [Message(alert, "firing") for key, alert in present.items() if key not in self._open]
        news += [Message(alert, "resolved") for key, alert in self._open.items() if key not in present]
        self._open = present
        if news:
            self._to_tell += news
            self._write()
        return news

    def deliver(self, send: Callable[[Message], bool]) -> int:
        """Tell what is still to be told, in order, until something does not arrive.

        Returns:
            How many arrived.
        """
        arrived = 0
        while self._to_tell and send(self._to_tell[0]):
            del self._to_tell[0]
            arrived += 1
            self._write()
        return arrived

    def _write(self) -> None:
        told = [{"alert": asdict(one.alert), "status": one.status} for one in self._to_tell]
        write_json(self._path, {"open": [asdict(alert) for alert in self.open], "to_tell": told})


def webhook_address(root: Path, alerts: Alerts) -> str | None:
    """Where alerts go; None where nowhere.

    Raises:
        StageError: The file that is to hold the address is missing, open to others, or holds none.
    """
    named = alerts.webhook
    if named is None or not named.startswith("file:"):
        return named
    path = root / named.removeprefix("file:")
    address = read_private(path, "write the webhook's address into it, and `chmod 600` it").decode().strip()
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StageError(f"{path} holds no address; one line as https://HOST/... was expected")
    return address


def payload(message: Message, federation: str) -> dict[str, str]:
    """An alert as JSON: fixed names, and words of our own."""
    alert = message.alert
    return {
        "source": "zk0",
        "federation": federation,
        "status": message.status,
        "rule": alert.rule,
        "severity": alert.severity,
        "subject": alert.subject,
        "summary": alert.summary,
        "since": datetime.fromtimestamp(alert.since, UTC).isoformat(timespec="seconds"),
        # What chat services show.
        "text": f"[{federation}] {message.status}: {alert.summary}",
    }


def try_webhook(address: str, federation: str) -> bool:
    """Send a message that says it is a test; whether it arrived."""
    text = "this is a test: alerts of this federation will arrive here"
    return post(address, {"source": "zk0", "federation": federation, "status": "test", "summary": text, "text": text})


def post(address: str, content: Any) -> bool:
    """Send JSON to an address; whether it was taken. What is wrong is logged without the address' path.

    Redirects are not followed: an alert goes where the operator said, or nowhere.
    """
    where = urlsplit(address).hostname or ""
    try:
        answer = httpx.post(address, json=content, timeout=_TIMEOUT_S, trust_env=not is_loopback(where))
    except httpx.HTTPError as error:
        tell("not-sent", logging.WARNING, to=where, problem=type(error).__name__)
        return False
    if not answer.is_success:
        tell("not-sent", logging.WARNING, to=where, problem=f"status {answer.status_code}")
    return answer.is_success


def as_event(message: Message, federation: str) -> dict[str, str | dict[str, str]]:
    """An alert as an event of Prefect's: ``zk0.alert.firing`` or ``zk0.alert.resolved``."""
    alert = message.alert
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": f"{EVENT}.{message.status}",
        "resource": {
            "prefect.resource.id": f"zk0.{alert.rule}.{alert.subject.replace(' ', '-')}",
            "prefect.resource.name": alert.subject,
            "zk0.rule": alert.rule,
            "zk0.severity": alert.severity,
        },
        "payload": payload(message, federation),
    }


def tell(event: str, level: int = logging.INFO, **facts: Any) -> None:
    """Write one line of the monitor's log."""
    logger.log(level, "", extra={"line": {"event": event, **facts}})
