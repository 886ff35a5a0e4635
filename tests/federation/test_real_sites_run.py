"""A whole run over three owners' datasets: other cameras, another rate, three joint conventions, one global model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federated_sites import LIMIT
from so100_recordings import as_lerobot, as_old_lerobot, calibration_file, motor_steps, next_states, write_v3, write_v21

from zk0.data.convert import convert_dataset
from zk0.data.manifest import read_manifests
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.server import FederationError
from zk0.federation.site import forget
from zk0.federation.start import locked_base
from zk0.files import read_json, write_json
from zk0.params import Params, parse_params
from zk0.pipeline import prepare
from zk0.policy.checkpoint import load_checkpoint
from zk0.records.files import read_lines
from zk0.so100 import JOINTS
from zk0.sources_lock import resolve_sources

STEPS = [[motor_steps(15, 10 * site + k) for k in range(2)] for site in range(3)]


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their datasets beside each other, the oldest converted from v2.1."""
    root = tmp_path_factory.mktemp("owners")
    write_v3(root / "berlin", [as_lerobot(steps, "degrees") for steps in STEPS[0]])
    cameras = {"overhead": (48, 64), "hand": (32, 32), "side": (32, 32)}
    normalised = [as_lerobot(steps, "range_m100_100") for steps in STEPS[1]]
    write_v3(root / "lagos", normalised, cameras=cameras, fps=30, robot_type="so100_follower")
    old = write_v21(root / "old", [as_old_lerobot(steps) for steps in STEPS[2]], cameras=["top"], fps=10)
    convert_dataset(old, root / "oslo")
    calibration_file(root / "lagos.json")
    return root


def params_of(owners: Path, **data: Any) -> Params:
    content: dict[str, Any] = {
        "threads": 1,
        "policy": {"base": "random:nano"},
        "data": {
            "sites": {name: f"local:{owners / name}" for name in ("berlin", "lagos", "oslo")},
            "cameras": {"lagos": {"overhead": "top", "hand": "wrist", "side": None}},
            "missing_cameras": "empty",
            "every": {"lagos": 3},
            "conventions": {"lagos": "normalised", "oslo": "so100-old"},
            "calibrations": {"lagos": str(owners / "lagos.json")},
        }
        | data,
        "training": {"local_steps": 1, "batch": 2, "warmup_steps": 0},
        "federation": {"rounds": 1},
        "evaluation": {"loss_draws": 1},
    }
    return parse_params(content)


def prepared(root: Path, params: Params) -> None:
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    forget()


def test_they_train_one_model_in_degrees(owners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZK0_BASE", raising=False)
    params = params_of(owners)
    prepared(tmp_path, params)

    report = run_federation(InProcessGrid(client_app, tmp_path, 3, LIMIT), tmp_path, params, locked_base(tmp_path))

    last = read_lines(tmp_path / "results" / "federation" / "rounds.jsonl")[-1]
    assert set(last["sites"]) == {"berlin", "lagos", "oslo"} and last["left_out"] == {}
    assert all(
        np.isfinite(site["train_loss"]) and np.isfinite(site["held_out_loss"]) for site in last["sites"].values()
    )
    assert read_json(tmp_path / "results" / "federation" / "run.json")["sites"]["lagos"]["every"] == 3
    degrees = {
        "berlin": [as_lerobot(steps, "degrees") for steps in STEPS[0]],
        "lagos": [as_lerobot(steps, "degrees") for steps in STEPS[1]],
        "oslo": [
            np.concatenate([(steps[:, :5] - 2048) * 180 / 2048, as_old_lerobot(steps)[:, 5:]], axis=1)
            for steps in STEPS[2]
        ],
    }
    sites, _ = read_manifests(tmp_path)
    trained = [degrees[site.site][episode][:: site.every] for site in sites for episode in site.train_episodes]
    commands = [next_states(degrees[s.site][e])[:: s.every] for s in sites for e in s.train_episodes]
    for feature, values in (("observation.state", trained), ("action", commands)):
        mean = report.stats[feature]["mean"]
        assert len(mean) == len(JOINTS)
        np.testing.assert_allclose(mean, np.concatenate(values).mean(axis=0), atol=1e-2)
    chunk = load_checkpoint(tmp_path / "checkpoints" / "last").policy.config.chunk_size
    assert chunk == 8 and torch.isfinite(torch.tensor(report.best_held_out_loss))


def test_a_camera_that_a_site_lacks_is_refused_by_default(owners: Path, tmp_path: Path) -> None:
    """All sites alike, so that only the policy tells that a camera is missing."""
    names = {"wrist": None, "lagos": {"overhead": "top", "hand": None, "side": None}}
    params = params_of(owners, cameras=names, missing_cameras="refuse")
    prepared(tmp_path, params)

    with pytest.raises(FederationError, match=r"site 'berlin' has no camera observation\.images\.wrist, which the pol"):
        run_federation(InProcessGrid(client_app, tmp_path, 3, LIMIT), tmp_path, params, locked_base(tmp_path))
