"""Whether somebody sits before this machine, and a page for them."""

from __future__ import annotations

import os
import sys
import webbrowser


def has_desktop() -> bool:
    """Whether windows can be shown."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show_in_browser(page: str) -> bool:
    """Open a page where there is a desktop; whether there is one."""
    if not has_desktop():
        return False  # what would be found there is a browser in letters, which takes the terminal
    try:
        return webbrowser.open(page)
    except (webbrowser.Error, OSError):
        return False
