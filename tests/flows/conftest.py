"""One Prefect server with a worker for all flows that are run as deployments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_services import free_port
from so100_recordings import as_lerobot, motor_steps, write_v3
from tests_support import make_project


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A project whose server and worker were brought up by the documented command, and the server's API."""
    base = tmp_path_factory.mktemp("served")
    project = make_project(base / "project", base / "prefect")
    port = free_port()
    project.run("zk0", "up", "--port", str(port), timeout=480)
    try:
        yield project, f"http://127.0.0.1:{port}/api"
    finally:
        stopped = project.run("zk0", "down").stdout
        assert "worker" in stopped and "server" in stopped


@pytest.fixture(scope="session")
def cups(served: Any) -> Path:
    """Three recordings of an SO-100 in that project, under the name that the documents use."""
    project, _ = served
    folder: Path = project.root / "cups"
    write_v3(folder, [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(3)], fps=30)
    return folder
