"""What the project's pages share: strict templates, and for HTML one style sheet."""

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


def templates(folder: Path, escaped: bool) -> jinja2.Environment:
    """Templates that refuse names they do not know.

    Args:
        folder: Where they are.
        escaped: As HTML needs it; in Markdown each value is :func:`zk0.words.in_markdown`'s work.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def environment() -> jinja2.Environment:
    """The templates of HTML pages, with the ways to write figures."""
    made = templates(TEMPLATES, escaped=True)
    made.filters.update({function.__name__: function for function in _FILTERS})
    return made


def verbatim(name: str) -> Markup:
    """The package's own style sheet or script, which must not be escaped."""
    return Markup((TEMPLATES / name).read_text())
