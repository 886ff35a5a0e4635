"""A project of a few lines with one passing, one failing and one skipped test, for those who run tests themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zk0.testing.records import FOLDER
from zk0.testing.reports import NOT_FOR_TESTS

_SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
markers = ["services: with real services"]

[tool.coverage.run]
source = ["package", "more"]

[tool.coverage.report]
fail_under = 80
"""
_PACKAGE = """
def double(number):
    return 2 * number
"""
_MORE = """
def half(number):
    if number < 0:
        sign = -1
        number = -number
    else:
        sign = 1
    return sign * number / 2
"""
PASSING = """
from more.halves import half
from package.doubles import double


def test_doubles():
    assert double(2) == 4


def test_halves():
    assert half(4) == 2
    assert half(-4) == -2
"""
FAILING = """
import pytest

from package.doubles import double


def test_doubles():
    assert double(2) == 4


def test_fails():
    words = "<b>left & right</b>"
    assert words == "something else", words


@pytest.fixture
def broken():
    raise OSError("no such device")


def test_needs_a_device(broken):
    pass


@pytest.mark.skip(reason="only on Sundays")
def test_skipped():
    raise AssertionError
"""
SERVICES = """
import pytest


@pytest.mark.services
def test_with_services():
    from more.halves import half

    assert half(-4) == -2
"""


def lay_out(root: Path, **modules: str) -> Path:
    """Packages ``package`` and ``more``, pyproject.toml, and tests: module name to text."""
    for folder, name, text in (("package", "doubles", _PACKAGE), ("more", "halves", _MORE)):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").touch()
        (root / folder / f"{name}.py").write_text(text)
    (root / "tests").mkdir()
    for name, text in modules.items():
        (root / "tests" / f"{name}.py").write_text(text)
    (root / "pyproject.toml").write_text(_SETTINGS)
    return root


def run_alone(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python there, as in a shell: neither pytest nor coverage around this process speaks to it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(NOT_FOR_TESTS)}
    env["COVERAGE_FILE"] = str(root / FOLDER / ".coverage")
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False
    )
