"""What the gateway counts: a line of JSON for each refusal, counters for Prometheus, and how much one may ask for.

A line names the address, the path, the reason and the key's fingerprint, and never the value of a header.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from zk0.services import telemetry

logger = logging.getLogger("zk0.gateway")

_WINDOW_S = 60.0
_KEPT = 10_000
_PATH = 120


class Refused(Exception):
    """A request that does not go through.

    Flower's node stops at 401, goes on trying at 502 and 503, and takes 403 for the end of a run.

    Attributes:
        status: HTTP status of the answer.
        reason: One word, for counters and lines.
        detail: A sentence for whoever asked.
        fingerprint: Of the key, where there was one.
        site: Whose key it is, where it is known.
        note: More, for the operator's eyes.
        retry_s: After how many seconds to try again; 0 = not said.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        fingerprint: str = "",
        site: str = "",
        note: str = "",
        retry_s: float = 0.0,
    ) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.retry_s = status, reason, detail, retry_s
        self.fingerprint, self.site, self.note = fingerprint, site, note


class Journal:
    """Counters, and lines that a flood of requests cannot make a flood of."""

    def __init__(self, lines_per_minute: int = 20) -> None:
        """Begin at nothing; of one address, so many lines a minute are written for one reason."""
        self._lines = lines_per_minute
        self.metrics = CollectorRegistry()
        self._passed = Counter(
            "zk0_gateway_requests", "Requests passed to the SuperLink", ("path", "status"), registry=self.metrics
        )
        self._refused = Counter("zk0_gateway_refused", "Requests refused", ("reason",), registry=self.metrics)
        self._bytes = Counter(
            "zk0_gateway_bytes", "Bytes of bodies passed", ("site", "direction"), registry=self.metrics
        )
        self._seen = Gauge(
            "zk0_gateway_site_seen_timestamp_seconds", "A site's last request", ("site",), registry=self.metrics
        )
        self.expires = Gauge(
            "zk0_gateway_certificate_expires_timestamp_seconds", "The certificate's end", registry=self.metrics
        )
        self.connections = Gauge("zk0_gateway_connections", "Open connections", registry=self.metrics)
        self._windows: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def passed(self, path: str, status: int) -> None:
        """Count a request that the SuperLink has answered."""
        self._passed.labels(path, str(status)).inc()

    def moved(self, site: str, direction: str, amount: int) -> None:
        """Count bytes of a body, ``up`` or ``down``."""
        self._bytes.labels(site, direction).inc(amount)

    def seen(self, site: str) -> None:
        """Note that a site was there just now."""
        self._seen.labels(site).set_to_current_time()

    def refused(self, refusal: Refused, address: str, method: str = "", path: str = "") -> None:
        """Count a refusal, and tell of it unless there were too many."""
        self._refused.labels(refusal.reason).inc()
        left_out = self._left_out((address, refusal.reason))
        if left_out is None:
            return
        line: dict[str, str | int] = {"event": "refused", "reason": refusal.reason, "status": refusal.status}
        line |= {"address": address, "method": method[:16], "path": path[:_PATH]}
        line |= {"fingerprint": refusal.fingerprint, "site": refusal.site, "detail": refusal.note or refusal.detail}
        if left_out:
            line["left_out_before"] = left_out
        logger.warning("", extra={"line": {name: value for name, value in line.items() if value != ""}})

    def _left_out(self, kind: tuple[str, str]) -> int | None:
        """How many lines of this kind were left out in the minute before; None where this one is, too."""
        now = time.monotonic()
        begun, count = self._windows.pop(kind, (now, 0))
        before = 0
        if now - begun > _WINDOW_S:
            before, begun, count = max(0, count - self._lines), now, 0
        self._windows[kind] = (begun, count + 1)
        if len(self._windows) > _KEPT:
            self._windows.popitem(last=False)
        return before if count < self._lines else None


def tell(event: str, level: int = logging.INFO, **facts: Any) -> None:
    """Write one line about the gateway itself."""
    logger.log(level, "", extra={"line": {"event": event, **facts}})


def log_as_json() -> None:
    """Let this process's log be lines of JSON on the error output."""
    telemetry.log_as_json(logger)
    # Its warnings are about single requests, which the journal counts.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


class Buckets:
    """One token bucket for each key: ``burst`` at once, ``rate`` a second on the average.

    The keys used longest ago are forgotten first, so that strangers with many addresses cannot fill the memory. A
    forgotten one begins with a full bucket.

    Example:
        >>> buckets = Buckets(rate=1.0, burst=2.0, clock=lambda: 0.0)
        >>> [buckets.take("a"), buckets.take("a"), buckets.take("a"), buckets.take("b")]
        [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(
        self, rate: float, burst: float, keep: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with all buckets full."""
        self._rate, self._burst, self._keep, self._clock = rate, burst, keep, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, amount: float = 1.0) -> float:
        """Take from a bucket, if there is enough.

        Returns:
            0 where it was taken, else the seconds until there would be enough.
        """
        now = self._clock()
        left, before = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - before) * self._rate)
        short = amount - left
        self._left[key] = (left if short > 0 else -short, now)
        if len(self._left) > self._keep:
            self._left.popitem(last=False)
        return max(0.0, short / self._rate)


def address_key(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits that one customer gets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
