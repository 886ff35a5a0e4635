"""Pieces of a benchmark: measured in a process of their own, and kept, so that an interrupted one goes on where it was.

As ``python -m benchmarks.pieces MODULE:FUNCTION ARGUMENTS.json RESULT.json`` it is such a process.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from zk0 import runtime_env
from zk0.console import console
from zk0.files import read_json, write_json
from zk0.measuring.rows import BenchmarkError, Row, machine_id, row

FOLDER = Path(".cache/bench/pieces")
LOGS = Path(".cache/bench/logs")
_SOURCES = (Path(__file__).parent, Path(__file__).parents[1] / "src" / "zk0")


def isolated(target: str, **arguments: Any) -> Any:
    """Call a function in a new process, so that memory and warm caches are nobody else's; returns what it returned.

    Args:
        target: ``module:function``, below ``benchmarks``; takes and returns what JSON can hold.
        arguments: Its arguments.

    Raises:
        BenchmarkError: It failed; ends with its last lines and names the log that holds all.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{target.rpartition(':')[2]}.log"
    with tempfile.TemporaryDirectory(prefix="zk0-bench-") as folder:
        given, result = Path(folder) / "arguments.json", Path(folder) / "result.json"
        given.write_text(json.dumps(arguments))
        command = [sys.executable, "-m", "benchmarks.pieces", target, str(given), str(result)]
        with log.open("w") as stream:
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode or not result.exists():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BenchmarkError(f"{target} failed (exit status {done.returncode}); all of it is in {log}:\n{last}")
        return json.loads(result.read_text())


def code_digest() -> str:
    """Changes when anything that is measured, or measures, changes."""
    digest = xxhash.xxh3_64()
    for folder in _SOURCES:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Pieces:
    """What one benchmark measures, by name, in a folder of its own.

    Attributes:
        folder: One benchmark's, at one size.
        machine: Values of another machine are measured anew.
        keep: Also take values that other code measured, for going on after a change that cannot matter.
        quick: Whether it is run at small sizes.
        command: The command line that measures it again.
    """

    folder: Path
    machine: Mapping[str, object]
    keep: bool = False
    quick: bool = False
    command: str = ""

    def get(self, name: str, measure: str | Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        """The value measured before an interruption, or measured now.

        Args:
            name: Names the piece and everything that its value depends on.
            measure: Returns what JSON can hold; a name as :func:`isolated` takes it runs in a process of its own.
            arguments: Its arguments.
            named: Its named arguments.
        """
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', name)}.json"
        context = {"name": name, "machine": machine_id(self.machine), "code": code_digest()}
        if (known := self._known(path, context)) is not None:
            console.print(f"  {name}: measured before", style="dim", markup=False)
            return known
        console.print(f"  {name}", markup=False)
        value = isolated(measure, **named) if isinstance(measure, str) else measure(*arguments, **named)
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

    def row(
        self,
        name: str,
        work: str,
        unit: str,
        ours: float,
        peer: tuple[float | None, str] = (None, ""),
        limit: float | None = None,
    ) -> Row:
        """A row of what this benchmark's command measures; see :class:`zk0.measuring.rows.Row`.

        Args:
            name, work, unit, ours, limit: As there.
            peer: Its figure, None where there is none, and its name.
        """
        return row(name, work, unit, ours, self.command, peer=peer[0], peer_name=peer[1], limit=limit)


def main() -> None:
    """Entry point of the new process."""
    target, given, result = sys.argv[1:]
    sys.argv = sys.argv[:1]  # LeRobot's configs read the command line they find
    runtime_env.switch_off()
    if target.startswith("benchmarks.peers."):
        os.environ.pop("GOMP_SPINCOUNT", None)  # zk0's own; read when torch is imported
    module, _, function = target.partition(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(Path(given).read_text()))
    Path(result).write_text(json.dumps(value, allow_nan=False))


if __name__ == "__main__":
    main()
