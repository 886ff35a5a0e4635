"""To whom alerts are told: a webhook, and Prefect as events that its automations can act on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from zk0.errors import StageError
from zk0.network.config import Alerts, is_loopback
from zk0.operations.monitor.alerts import Message
from zk0.private_files import read_private

EVENT = "zk0.alert"
_TIMEOUT_S = 10.0
logger = logging.getLogger("zk0.monitor")


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


def payload(message: Message, federation: str) -> dict[str, Any]:
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


def as_event(message: Message, federation: str) -> dict[str, Any]:
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
