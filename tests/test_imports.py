"""What is typed often, and what runs all the time, needs no policy: torch and lerobot stay unloaded."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "zk0.checkpoints",
        "zk0.pipeline.prepare",
        "zk0.operations.status",
        "zk0.operations.monitor.service",
        "zk0.network.server.session",
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
