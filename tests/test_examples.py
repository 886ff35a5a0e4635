"""What docstrings show as an example is what happens."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
from tests_support import REPO

SOURCES = REPO / "src"
MODULES = [
    ".".join(file.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted(SOURCES.rglob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    found = doctest.testmod(importlib.import_module(module))

    assert found.attempted and not found.failed
