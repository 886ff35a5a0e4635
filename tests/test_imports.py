"""Who knows whom. What is typed often, and what runs all the time, needs no policy: torch and lerobot stay unloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    [
        "zk0.checkpoints",
        "zk0.pipeline.prepare",
        "zk0.operations.status",
        "zk0.operations.monitor.service",
        "zk0.network.server.steps",
        "zk0.network.server.status",
        "zk0.network.client.status",
        "zk0.network.client.app",
    ],
)
def test_no_policy_is_loaded_for_what_needs_none(module: str) -> None:
    heavy = "{'torch', 'lerobot', 'transformers', 'mlflow', 'prefect'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_rooms_know_only_those_below_them() -> None:
    """The contracts of pyproject.toml, with the imports inside functions and for types alone."""
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
