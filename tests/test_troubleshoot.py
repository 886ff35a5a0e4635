"""docs/troubleshoot.md and docs/data.md tell of messages that the code really has, the latter of all that checks "
"give."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from tests_support import REPO

_SOURCE = REPO / "src" / "zk0"
_PAGES = [REPO / "docs" / name for name in ("troubleshoot.md", "data.md")]
_TABLE = re.compile(r"^\| message \| do \|\n\|[ -|]+\|\n((?:\|.*\n)+)", re.M)
_VALUE = "\x00"
_CHECKS = [
    f"{name}.py"
    for name in (
        *("cameras", "check", "convert", "formats", "info", "layout", "manifest"),
        *("pictures", "readings", "survey", "units", "v21"),
    )
]
# Parts of other messages, and what only an unchecked dataset could lead to.
_INNER = re.compile(
    r"a mapping was expected|^\x00?; it is missing|^\x00, found|^\x00, or name a copy|video of episode|"
    r", and \x00 are there$"
)


def messages() -> list[str]:
    """The first column of the pages' tables of messages."""
    tables = "".join(table for page in _PAGES for table in _TABLE.findall(page.read_text()))
    return re.findall(r"^\| `(.+?)` \|", tables, re.M)


def pattern(message: str) -> str:
    """What a message of the pages looks like in the source."""
    return ".*?".join(re.escape(part) for part in message.split("..."))


def is_said(message: str) -> bool:
    """Whether a string of the source has this message."""
    whole, longest = re.compile(pattern(message), re.S), max(message.split("..."), key=len)
    return any(longest in text and whole.search(text) for text in strings())


def text_of(node: ast.AST) -> str | None:
    """A string as the source has it, with a mark in place of an f-string's values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else _VALUE for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@cache
def strings() -> list[str]:
    """Every string in the source."""
    nodes = (node for path in _SOURCE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    return [text for node in nodes if (text := text_of(node)) is not None]


def raised(path: Path) -> list[str]:
    """What a module's errors say."""
    calls = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    said = [text_of(call.args[0]) for call in calls if isinstance(call, ast.Call) and call.args]
    return [text for text in said if text and text.strip(_VALUE + ": ")]


@pytest.mark.parametrize("message", messages())
def test_the_code_has_this_message(message: str) -> None:
    assert is_said(message), message


@pytest.mark.parametrize("module", _CHECKS)
def test_every_message_of_the_checks_is_in_the_docs(module: str) -> None:
    known = [pattern(message) for message in messages()]

    for said in raised(_SOURCE / "data" / module):
        assert _INNER.search(said) or any(re.search(one, said, re.S) for one in known), said


def test_a_message_that_nobody_has_would_be_found() -> None:
    assert len(messages()) > 100
    assert not is_said("the SuperLink at the moon cannot be reached")
