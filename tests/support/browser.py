"""A real browser without a window: Debian's chromium, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NONE = "no chromium here: `apt-get install chromium`"
# What it would look for elsewhere by itself, at every start.
_QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
_PATIENCE_MS = 30_000  # of the page's own clock: once nothing is loading, it runs ahead


def page_after_scripts(url: str, size: tuple[int, int] = (1600, 1200)) -> str:
    """A page's HTML once its scripts have run."""
    return _browse(url, size, "--dump-dom")


def take_picture(url: str, file: Path, size: tuple[int, int]) -> None:
    """A page as it looks, as PNG; size in CSS pixels."""
    _browse(url, size, f"--screenshot={file.resolve()}", "--hide-scrollbars")


def _browse(url: str, size: tuple[int, int], *what: str) -> str:
    assert CHROMIUM, NONE
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses otherwise
    with tempfile.TemporaryDirectory() as profile:
        where = [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        words = ["--headless", "--disable-gpu", *_QUIET, *as_root, *where, f"--virtual-time-budget={_PATIENCE_MS}"]
        done = subprocess.run([CHROMIUM, *words, *what, url], capture_output=True, text=True, timeout=240, check=True)
    return done.stdout
