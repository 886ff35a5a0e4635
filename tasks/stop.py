"""Ctrl-C in a flow that runs as a command: work ends at once, and Prefect's own doings are not cut in two."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_asked = _at_once = False


def listen() -> None:
    """Take Ctrl-C as a wish from here on: it is granted in the next :func:`stoppable` block, or the present one.

    Prefect would take one that meets it while it writes down a state, or starts its server, for a crash.
    """
    signal.signal(signal.SIGINT, _ask)


@contextmanager
def stoppable() -> Iterator[None]:
    """A block that Ctrl-C ends at once.

    Raises:
        KeyboardInterrupt: It was stopped, or had been asked to before it began.
    """
    global _at_once
    before, _at_once = _at_once, True
    try:
        if _asked:
            raise KeyboardInterrupt
        yield
    finally:
        _at_once = before


def _ask(*_: object) -> None:
    global _asked, _at_once
    _asked = True
    if _at_once:
        _at_once = False  # what is to be done now, is done to its end
        raise KeyboardInterrupt
