"""Matplotlib figures as SVG that is the same bytes for the same figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from zk0.files import write_bytes

_STYLE: Any = {"svg.hashsalt": "zk0", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False}


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure, without a date and without spaces at the ends of lines."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    lines = [line.rstrip() for line in buffer.getvalue().decode().splitlines()]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
