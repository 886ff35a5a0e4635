"""One finished project for all whole-run tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests_support import Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project after one `dvc repro`; tests may add to it but leave its params as they were."""
    base = tmp_path_factory.mktemp("e2e")
    project = make_project(base / "project", base / "prefect")
    project.run("dvc", "repro", timeout=580)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "first run")
    yield project
