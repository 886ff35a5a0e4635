"""How much one address or one site may ask for: token buckets, of a bounded number of keys."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable


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
