"""Run one DVC stage as a task: DVC decides whether it is stale, Prefect shows and retries it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect.logging import get_run_logger

SKIPPED = "didn't change, skipping"

# DVC's advice to someone typing at a prompt, which means nothing in a flow run's log.
_ADVICE = ("To track the changes with git", "git add ", "To enable auto staging", "dvc config core.", "Use `dvc push`")


class StageFailed(RuntimeError):
    """A stage's command failed; the message ends with its last lines."""


@dataclass(frozen=True)
class StageRun:
    """What became of a stage: whether it ran, and its seconds."""

    stage: str
    changed: bool
    seconds: float


def run_stage(
    stage: str,
    root: Path,
    *,
    environment: Mapping[str, str] | None = None,
    force: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> StageRun:
    """Run ``dvc repro --single-item STAGE`` and stream its lines to the run's log.

    Args:
        stage: A stage of dvc.yaml.
        root: Project folder.
        environment: Further variables for the command.
        force: Run it even if nothing it depends on has changed.
        on_line: Called with each line.

    Raises:
        StageFailed: The command failed.
    """
    logger = get_run_logger()
    began = time.monotonic()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # The stage's own command is `zk0`, which stands beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "110", **(environment or {})},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = line.rstrip()
                if text and not text.strip().startswith(_ADVICE):
                    lines.append(text)
                    logger.info(text)
                    on_line(text)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise StageFailed(f"stage '{stage}' failed:\n" + "\n".join(lines[-15:]))
    # A stage that DVC restored from its run cache did not run either, but its outputs are new here.
    changed = not any(SKIPPED in line for line in lines)
    return StageRun(stage, changed, time.monotonic() - began)
