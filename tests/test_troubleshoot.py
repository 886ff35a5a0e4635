"""docs/troubleshoot.md tells of messages that the code really has."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from tests_support import REPO

_PAGE = REPO / "docs" / "troubleshoot.md"
_VALUE = "\x00"


def messages() -> list[str]:
    """The first column of the page's tables."""
    return re.findall(r"^\| `(.+?)` \|", _PAGE.read_text(), re.M)


@cache
def strings() -> str:
    """Every string in the source, f-strings with a mark in place of their values."""
    found = []
    for path in (REPO / "src" / "zk0").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else _VALUE for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\x01".join(found)


@pytest.mark.parametrize("message", messages())
def test_the_code_has_this_message(message: str) -> None:
    fixed = [re.escape(part) for part in message.split("...")]
    pattern = "[^\x01]*?".join(fixed)

    assert re.search(pattern, strings(), re.S), message


def test_a_message_that_nobody_has_would_be_found() -> None:
    assert len(messages()) > 25
    assert not re.search(re.escape("the SuperLink at the moon cannot be reached"), strings())
