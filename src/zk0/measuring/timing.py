"""Measure seconds and peak memory of this process."""

from __future__ import annotations

import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_LOOK_S = 0.005


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, in their unit.

    Attributes:
        median: The middle one, which a single disturbed repeat does not move.
        low: The smallest.
        high: The largest.
        count: How many there were.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0, count=3)

        Raises:
            ValueError: There is none.
        """
        if not values:
            raise ValueError("there is nothing to summarise: no repeat was measured")
        return cls(float(statistics.median(values)), float(min(values)), float(max(values)), len(values))

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g}, {self.count} repeats)"


def seconds_of(work: Callable[[int], object], count: int, warm_up: int = 3) -> list[float]:
    """Seconds of each of ``count`` calls, after ``warm_up`` uncounted ones.

    Args:
        work: Called with the number of the repeat, from 1 in the warm-up and again from 1 when counted.
        count: Calls that count, at least 1.
        warm_up: Calls before them.
    """
    for number in range(warm_up):
        work(number + 1)
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        work(number + 1)
        seconds.append(time.perf_counter() - began)
    return seconds


def alternated(works: Mapping[str, Callable[[int], object]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of several works, taking turns, so that a machine that slows down slows them alike.

    Args:
        works: What is compared, by name.
        repeats: Counted calls of each.
        warm_up: Uncounted calls of each before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        seconds_of(work, 0, warm_up)
    for number in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work(number + 1)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def resident_bytes() -> int:
    """Memory this process holds now, resident."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most memory this process has held, resident, since it started or since :func:`reset_peak`.

    Read from the kernel's high-water mark where there is one: ``getrusage`` also counts what the
    parent held when it forked.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def private_bytes() -> int:
    """Memory this process holds now for itself, without what it shares, such as files and a Ray cluster's store."""
    now = psutil.Process().memory_info()
    return int(now.rss - getattr(now, "shared", 0))


class PrivatePeak(threading.Thread):
    """Looks at :func:`private_bytes` every few milliseconds within a block, for the most of it since the block began.

    The kernel keeps no high-water mark of it, and what is held between two looks is missed.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = private_bytes()
        self._over = threading.Event()

    def run(self) -> None:
        """Look until the block is over."""
        while not self._over.wait(_LOOK_S):
            self.most = max(self.most, private_bytes())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.most = max(self.most, private_bytes())
        self._over.set()
        self.join()


def reset_peak() -> None:
    """Begin a new high-water mark, where the system allows it (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return
