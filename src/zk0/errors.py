"""Errors a person can mend: shown as their message, without a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class StageError(RuntimeError):
    """A stage cannot go on; the message says what was wrong, what was expected and what to do."""


class DataError(StageError):
    """A dataset, a recording or a manifest is not what it must be."""


_FULL, _CLOSED = "make room there, and start it again", "make it writable, or work in a copy"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
# The same where a library wrapped it in an error of its own: safetensors the system's words, and SQLite in its own.
_WORDS = {
    os.strerror(errno.ENOSPC): _FULL,
    os.strerror(errno.EROFS): _CLOSED,
    "database or disk is full": _FULL,
    "attempt to write a readonly database": _CLOSED,
    "unable to open database file": _CLOSED,
}


def refused_by_disk(error: BaseException | None) -> str | None:
    """What to tell of an error behind which a disk is full or may not be written to; None where it is another.

    >>> refused_by_disk(OSError(28, "No space left on device", "/data/x.bin"))
    'No space left on device: /data/x.bin; make room there, and start it again'
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ADVICE:
            return f"{error.strerror}: {error.filename or Path.cwd()}; {_ADVICE[error.errno]}"
        if words := next((words for words in _WORDS if words in str(error)), None):
            return f"{words}: {Path.cwd()}; {_WORDS[words]}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
