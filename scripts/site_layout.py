"""mkdocs' hook: the site is laid out as the clone, so that a link leads to the same place on both.

MkDocs looks for pages in docs/ alone. The README, which is the front page, and the other pages beside docs/ are added,
and so is every file that a page links to. A folder is no page of a site: of a link to one, its text stays.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Files of the docs under their path in the clone, with the pages beside docs/ and what any of them links to."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir)
    theme = [file for file in files if file.src_dir != config.docs_dir]
    waiting = [*root.glob("*.md"), *(docs / file.src_uri for file in files if file.src_dir == config.docs_dir)]
    found: dict[str, Path] = {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name not in found:
            found[name] = path
            waiting += [other for other in _linked(path) if other.is_file()] if path.suffix == ".md" else []
    laid_out = [File.generated(config, name, abs_src_path=str(path)) for name, path in sorted(found.items())]
    return Files([*theme, *laid_out])


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """The page's text without its links to folders."""
    beside = Path(str(page.file.abs_src_path)).parent
    return _LINK.sub(lambda link: link[1] if (beside / link[2]).is_dir() else link[0], markdown)


def _linked(page: Path) -> list[Path]:
    return [Path(os.path.normpath(page.parent / link[2])) for link in _LINK.finditer(page.read_text())]
