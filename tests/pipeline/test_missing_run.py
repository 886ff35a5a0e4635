"""Stages that follow a federation say what is missing where none has run."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.errors import StageError
from zk0.params import Params
from zk0.pipeline import benchmark, evaluate


@pytest.mark.parametrize("stage", [evaluate, benchmark])
def test_without_a_run_the_command_that_makes_one_is_named(stage: object, small_params: Params, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run.json is missing; `zk0 federate` makes it"):
        stage.run(tmp_path, small_params)  # type: ignore[attr-defined]
