"""A service's log: its end, and what is added to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from zk0.errors import StageError
from zk0.services.process import RUN, Services
from zk0.words import nearest_hint

_POLL_S = 0.25


def read_log(root: Path, name: str, lines: int, follow: bool = False) -> Iterator[str]:
    """Lines of a service's log, oldest first.

    Args:
        root: Project folder.
        name: The service.
        lines: How many of those that are there.
        follow: Go on with what is added, for as long as somebody asks.

    Raises:
        StageError: There is no such log; names the nearest.
    """
    services = Services(root / RUN)
    path = services.log(name)
    if not path.is_file():
        known = sorted(log.stem for log in services.folder.glob("*.log"))
        hint = nearest_hint(name, known) if known else ": nothing has been started here"
        raise StageError(f"there is no log of a service '{name}'{hint}")
    stream = path.open(errors="replace")
    try:
        yield from stream.read().splitlines()[-lines:]
        while follow:
            if line := stream.readline():
                yield line.rstrip(os.linesep)
            elif _rotated(path, stream):
                stream.close()
                stream = path.open(errors="replace")
            else:
                time.sleep(_POLL_S)
    finally:
        stream.close()


def _rotated(path: Path, stream: IO[str]) -> bool:
    """Whether the log begins anew in another file."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:  # at this very moment
        return False
