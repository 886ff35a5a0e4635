"""One process at a time in a folder; whoever comes second is told who is there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from zk0.errors import StageError
from zk0.files import parse_json

STAGE_LOCK = Path(".run/stage.lock")


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock within the block. The kernel gives it back when the process ends, however it ends.

    Args:
        lock: A file that only this is for; it says who holds the lock, and stays.
        what: The command that wants it, for whoever comes second.

    Raises:
        StageError: Another process holds it; names the process, what it does and since when.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StageError(
                f"`{what}` is refused: {_holder(file.read())} is at work in this folder; wait for it, or stop it first"
            ) from error
        file.truncate()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "what": what, "started": started}) + "\n")
        file.flush()
        yield


def _holder(text: str) -> str:
    """Whoever holds a lock, by what it wrote; it may not have written yet."""
    try:
        told = parse_json(text, "the lock")
        return f"`{told['what']}` (process {told['pid']}, since {told['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
