"""Pieces of a benchmark, kept as they are measured, so that an interrupted one goes on where it was."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.console import console
from zk0.files import read_json, write_json
from zk0.measuring.rows import machine_id

FOLDER = Path(".cache/bench/pieces")
_SOURCES = (Path(__file__).parent, Path(__file__).parents[1] / "src" / "zk0")


def code_digest() -> str:
    """Changes when anything that is measured, or measures, changes."""
    return "-".join(_python_digest(folder) for folder in _SOURCES if folder.is_dir())


def _python_digest(folder: Path) -> str:
    import xxhash

    digest = xxhash.xxh3_64()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass
class Pieces:
    """Measured values by name, in a folder of their own.

    Attributes:
        folder: One benchmark's, at one size.
        machine: Values of another machine are measured anew.
        keep: Also take values that other code measured, for going on after a change that cannot matter.
    """

    folder: Path
    machine: dict[str, Any]
    keep: bool = False

    def get(self, name: str, measure: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        """The value measured before an interruption, or measured now.

        Args:
            name: Names the piece and everything that its value depends on.
            measure: Returns what JSON can hold.
            arguments: Its arguments.
            named: Its named arguments.
        """
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', name)}.json"
        context = {"name": name, "machine": machine_id(self.machine), "code": code_digest()}
        if (known := self._known(path, context)) is not None:
            console.print(f"  {name}: measured before", style="dim", markup=False)
            return known
        console.print(f"  {name}", markup=False)
        value = measure(*arguments, **named)
        write_json(path, context | {"value": value})
        return value

    def _known(self, path: Path, context: dict[str, str]) -> Any:
        if not path.exists():
            return None
        try:
            content = read_json(path)
        except ValueError:
            return None
        compared = [key for key in context if key != "code" or not self.keep]
        return content.get("value") if all(content.get(key) == context[key] for key in compared) else None

    def clear(self) -> None:
        """Forget them: the next run measures anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
