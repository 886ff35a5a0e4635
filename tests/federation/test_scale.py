"""The engine on Ray: the same model for any number of workers, whatever becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from federated_sites import BASE, copy_project

from zk0.federation.engine import engine_for
from zk0.federation.run import run_federation
from zk0.federation.site import forget
from zk0.params import Params, with_changes
from zk0.records.run import Run

pytest.importorskip("ray")

# Everything that a site carries from round to round.
CARRIED: dict[str, Any] = {
    "training.keep_moments": True,
    "federation.uplink": "int4",
    "federation.downlink": "int8",
    "federation.rounds": 3,
}


def federated(root: Path, params: Params, **engine: Any) -> Run:
    """A run of three sites on an engine."""
    chosen = with_changes(params, {f"engine.{name}": value for name, value in engine.items()})
    forget()
    with engine_for(root, chosen, 2) as grid:
        return run_federation(grid, root, chosen, BASE)


@pytest.mark.services
def test_any_number_of_workers_makes_the_same_model(project: Path, quick: Params, tmp_path: Path) -> None:
    params = with_changes(quick, CARRIED)
    alone = federated(project, params)
    for workers in (1, 2):
        root = copy_project(project, tmp_path / str(workers))
        run = federated(root, params, name="ray", workers=workers)
        assert run.run == alone.run
        assert run.checkpoints == alone.checkpoints
