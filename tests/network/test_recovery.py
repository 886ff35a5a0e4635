"""Each service is killed while a run goes on, and comes back; the run ends at the model of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.projects import demo_params
from benchmarks.recovery import measure, table

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
KINDS = ("superlink", "trainer")


def test_whatever_is_killed_comes_back_and_the_model_is_the_same(tmp_path: Path) -> None:
    """On the server and at a site; `python -m benchmarks.recovery` kills every kind."""
    params = demo_params(training={"local_steps": 2, "batch": 4}, data={"episodes": 3}, evaluation={"loss_draws": 1})

    found = measure(tmp_path, params, KINDS, ("federation", "monitor"))

    assert [one.kind for one in found if not one.same] == [], table(found)
