"""What is typed often, and what runs all the time, needs no policy: torch and lerobot stay unloaded."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "zk0.checkpoints",
        "zk0.stages.prepare",
        "zk0.deployment.overview",
        "zk0.deployment.monitor.service",
        "zk0.deployment.serving.session",
        "zk0.deployment.serving.status",
        "zk0.deployment.membership.status",
        "zk0.deployment.site_app",
    ],
)
def test_no_policy_is_loaded_for_what_needs_none(module: str) -> None:
    heavy = "{'torch', 'lerobot', 'transformers', 'mlflow', 'prefect'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
