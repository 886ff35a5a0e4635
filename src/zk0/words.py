"""Words of messages: what came from outside made fit to be shown, and the nearest of what is known.

What came from outside is shown short, in one line, and told apart from zk0's own.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import ValidationError

LONGEST = 300
_QUOTED = 200  # leaves room for what zk0 itself says around it
_TAG_OR_ENTITY = re.compile(r"<(?=[^\s\d])|&(?=[#\w])")  # as these begin in CommonMark, and a little more
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, longest: int = LONGEST) -> str:
    r"""A text without anything that steers a terminal or turns the direction of writing, in one line, shortened.

    Line breaks and other spaces become one space; control, format and unassigned characters and halves of surrogate
    pairs become a question mark in a diamond, so that nothing vanishes unseen.

    >>> printable("disk full\n\x1b[2Jround 3: all is well")
    'disk full \ufffd[2Jround 3: all is well'
    """
    cut = len(text) > longest
    # More than is shown is read, since spaces may fall away; never all of what may be megabytes.
    spaced = " ".join(text[: 4 * longest].split())
    shown = "".join(letter if letter.isprintable() else _UNREADABLE for letter in spaced)
    return shown[: longest - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}" if cut or len(shown) > longest else shown


def said(who: str, text: str) -> str:
    """What somebody says, in quotation marks that its own cannot close.

    >>> said("kitchen", 'no space left on "/data"')
    'kitchen says: "no space left on \\'/data\\'"'
    """
    inner = printable(text, _QUOTED).replace('"', "'")
    return f'{who} says: "{inner}"'


def in_markdown(text: str) -> str:
    """A text from outside as text and nothing else in Markdown, also in a cell of a table: no tag, link or picture.

    >>> in_markdown("lift | <b>![x](http://a)")
    'lift \\\\| &lt;b>!\\\\[x\\\\](http://a)'
    """
    safe = _TAG_OR_ENTITY.sub(lambda found: html.escape(found[0], quote=False), text)
    for mark in "|[]":
        safe = safe.replace(mark, f"\\{mark}")
    return " ".join(safe.split())


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], figures: Collection[int] = ()) -> str:
    r"""A table in Markdown; whatever a cell says is text and nothing else.

    Args:
        head: The columns' names.
        rows: Each with as many cells.
        figures: Columns that stand on the right, counted from 0.

    >>> print(markdown_table(["site", "loss"], [["a|b", "0.5"]], figures=[1]))
    | site | loss |
    | --- | --: |
    | a\|b | 0.5 |
    """
    lines = [head, ["--:" if column in figures else "---" for column in range(len(head))]]
    lines += [[in_markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def brief(value: Any) -> str:
    """A value from outside for a message about it, however large it is.

    >>> brief(10**400), brief([2, 3]), brief("a\\tb"), brief({"a": 1})
    ('an integer of 1329 bits', '[2, 3]', "'a b'", 'a dict')
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list | tuple) and len(value) <= 8:
        return f"[{', '.join(brief(one) for one in value)}]" if not _nested(value) else "a nested list"
    return repr(printable(value, 40)) if isinstance(value, str) else f"a {type(value).__name__}"


def _nested(values: Any) -> bool:
    return any(isinstance(one, list | tuple) for one in values)


def fault(error: ValidationError) -> str:
    """The first thing that a model found wrong, in a clause: where, what was found, what was expected."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "content"
    if first["type"] == "missing":
        return f"{where} is missing"
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{where} is {brief(first['input'])}: {expected}" if first["loc"] else f"{where}: {expected}"


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
    '0 to 2, 7'
    """
    parts: list[list[int]] = []
    for episode in sorted(episodes):
        if parts and parts[-1][-1] == episode - 1:
            parts[-1].append(episode)
        else:
            parts.append([episode])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in parts)
