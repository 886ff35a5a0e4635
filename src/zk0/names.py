"""Names people mistype: what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """A clause to end an error message with: the nearest known name, or all of them.

    >>> nearest_hint("fedprx", ["fedavg", "fedprox"])
    "; did you mean 'fedprox'?"
    """
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{match[0]}'?" if match else f"; known are {', '.join(names)}"
