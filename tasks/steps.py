"""Run one DVC stage as a task: DVC decides whether it is stale, Prefect shows and retries it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.streaming import CommandFailed, stream

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
    began = time.monotonic()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # The stage's own command is `zk0`, which stands beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        lines = stream(
            command, root, environment={"PATH": path, **(environment or {})}, leave_out=_ADVICE, on_line=on_line
        )
    except CommandFailed as error:
        raise StageFailed(f"stage '{stage}' failed:\n{error}") from error
    # A stage that DVC restored from its run cache did not run either, but its outputs are new here.
    changed = not any(SKIPPED in line for line in lines)
    return StageRun(stage, changed, time.monotonic() - began)
