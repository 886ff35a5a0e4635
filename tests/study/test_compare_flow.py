"""The flow that runs a study arm by arm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows import study as module

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with prefect_test_harness(server_startup_timeout=120):
            yield


def test_the_flow_runs_arms_and_renders_the_page(
    _server: None, recorded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the study's arms, a task with a process of its own; the page says that others are missing."""
    monkeypatch.chdir(recorded_folder)
    whole = module.plan_study
    monkeypatch.setattr(module, "plan_study", lambda *given: whole(*given)[:1])

    state = module.compare(return_state=True)

    assert state.is_completed() and state.message == "comparison is complete"
    page = (recorded_folder / "docs" / "RESULTS.md").read_text()
    assert "`base`" in page and "`alone:red`" not in page
    assert "12 pieces are still to be made" in page
    assert (recorded_folder / "docs" / "images" / "results" / "comparison-rates.svg").exists()
