"""Run one measurement in a process of its own, so that memory and warm caches are nobody else's.

``python -m benchmarks.isolated MODULE:FUNCTION ARGUMENTS.json RESULT.json``
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from zk0 import runtime_env
from zk0.measuring.rows import BenchmarkError

LOGS = Path(".cache/bench/logs")


def isolated(target: str, **arguments: Any) -> Any:
    """Call a function in a new process and return what it returned.

    Args:
        target: ``module:function``; takes and returns what JSON can hold.
        arguments: Its arguments.

    Raises:
        BenchmarkError: It failed; ends with its last lines and names the log that holds all.
    """
    module = target.partition(":")[0].rpartition(".")[2]
    LOGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zk0-bench-") as folder:
        given, result = Path(folder) / "arguments.json", Path(folder) / "result.json"
        given.write_text(json.dumps(arguments))
        log = LOGS / f"{module}.log"
        with log.open("w") as stream:
            command = [sys.executable, "-m", "benchmarks.isolated", target, str(given), str(result)]
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode or not result.exists():
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BenchmarkError(f"{target} failed (exit status {done.returncode}); all of it is in {log}:\n{last}")
        return json.loads(result.read_text())


def main() -> None:
    """Entry point of the new process."""
    target, given, result = sys.argv[1:]
    sys.argv = sys.argv[:1]  # LeRobot's configs read the command line they find
    runtime_env.switch_off()
    module, _, function = target.partition(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(Path(given).read_text()))
    Path(result).write_text(json.dumps(value, allow_nan=False))


if __name__ == "__main__":
    main()
