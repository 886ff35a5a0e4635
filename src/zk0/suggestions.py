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


def check_site_name(name: str) -> str:
    """A site's name as it is, if it may be one: it becomes part of file names, tables and metrics.

    Raises:
        ValueError: It is empty or holds something else than letters, digits, '-' and '_'.
    """
    if not name or not all(character.isalnum() or character in "-_" for character in name):
        raise ValueError(f"site name '{name}' may hold letters, digits, '-' and '_' only")
    return name


def stretches(episodes: Iterable[int]) -> str:
    """Numbers of episodes in words.

    >>> stretches([0, 1, 2, 7])
    "0 to 2, 7"
    """
    parts: list[list[int]] = []
    for episode in sorted(episodes):
        if parts and parts[-1][-1] == episode - 1:
            parts[-1].append(episode)
        else:
            parts.append([episode])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in parts)
