"""Settings that a person wrote: YAML, of which no more is taken than a file of settings needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from zk0.files import BadFileError, check_depth, read_text

_MOST_BYTES = 1 << 18


class _Loader(yaml.SafeLoader):
    """Without references, by which a few lines stand for more than a memory holds, and without a key said twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(
                None, None, f"'*{event.anchor}' refers to another place; write it out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise ConstructorError(None, None, f"the key '{key.value}' is there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It cannot be read, is not YAML, or no mapping; names the file and the place in it.
    """
    return parse_settings(read_text(path, _MOST_BYTES), str(path))


def parse_settings(text: str, origin: str) -> dict[str, Any]:
    """Read settings; see :func:`read_settings`."""
    try:
        content = yaml.load(text, _Loader)  # a safe one
    except RecursionError as error:
        raise BadFileError(f"{origin} is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise BadFileError(f"{origin} is not valid YAML: {_told(error)}") from error
    if not isinstance(content, dict):
        raise BadFileError(f"{origin} must be a mapping of sections, but holds {type(content).__name__}")
    check_depth(content, origin)
    return content


def _told(error: Exception) -> str:
    """What is wrong and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(str(problem).split())
