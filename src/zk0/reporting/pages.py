"""What the project's HTML pages share: templates that escape what they are given, and one style sheet."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from zk0.reporting import format as fmt

TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = (
    fmt.number,
    fmt.count,
    fmt.signed,
    fmt.percent,
    fmt.signed_percent,
    fmt.points,
    fmt.degrees,
    fmt.data_size,
    fmt.duration,
    fmt.moment,
    fmt.quantity,
    fmt.plain,
    fmt.machine,
)


def environment() -> jinja2.Environment:
    """Templates that escape whatever comes from files, and refuse names they do not know."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({function.__name__: function for function in _FILTERS})
    return made


def verbatim(name: str) -> Markup:
    """The package's own style sheet or script, which must not be escaped."""
    return Markup((TEMPLATES / name).read_text())
