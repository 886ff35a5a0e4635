"""Each service is killed while a run goes on, and comes back; the run ends at the model of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.projects import demo_params
from benchmarks.recovery import SERVER, SITE, measure, table

pytestmark = [pytest.mark.release, pytest.mark.timeout(3600)]
OTHERS = ("mlflow", "prefect-server", "prefect-worker")  # a federation does not need them


def test_whatever_is_killed_comes_back_and_the_model_is_the_same(tmp_path: Path) -> None:
    """A killed server and a killed site are every run's: test_full_disk.py and test_failures.py."""
    params = demo_params(training={"local_steps": 2, "batch": 4}, data={"episodes": 3}, evaluation={"loss_draws": 1})

    found = measure(
        tmp_path, params, [*(kind for kind in SERVER if kind not in OTHERS), *SITE], ("federation", "monitor")
    )

    assert [one.kind for one in found if not one.same] == [], table(found)
