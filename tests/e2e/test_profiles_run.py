"""Every profile runs through the pipeline as it stands, but for its sizes, on stand-ins for what the Hub has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import lay_out_cache
from so100_recordings import as_old_lerobot, motor_steps, write_v3
from standin_policy import smolvla_base
from tests_support import REPO

from zk0.files import read_json
from zk0.params import Params, load_params
from zk0.pipeline.stages import run_stage

pytestmark = pytest.mark.services

LATER = ("demo", "network", "quality", "rooms")  # of simulated owners, as the other tests' runs: before a release
PROFILES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.release] * (path.stem in LATER))
    for path in sorted((REPO / "profiles").glob("*.yaml"))
]
STAGES = ("validate", "prepare", "federate", "evaluate", "benchmark", "report", "track")
MAIN = [
    f"main_{joint}" for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
]
# Nothing but how much of it there is, and the machine.
SMALLEST: dict[str, dict[str, Any]] = {
    "policy": {"device": "cpu"},
    "data": {"episodes": 2},
    "training": {"local_steps": 2, "batch": 2},
    "federation": {"rounds": 2},
    "evaluation": {"loss_draws": 1, "max_steps": 4},
    "benchmark": {"steps": 2, "chunks": 2},
}


def smallest(profile: Path, out: Path) -> Params:
    """A profile's params, as small as they come, written to a file."""
    content = yaml.safe_load(profile.read_text())
    content["threads"] = 1
    for section, sizes in SMALLEST.items():
        assert sizes.keys() <= content[section].keys()
        content[section] |= sizes
    for name in ("rollouts", "videos"):
        content["evaluation"][name] = min(1, content["evaluation"][name])
    out.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_params(out)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with the dataset and the policy that so100-hub names, and no network."""
    from huggingface_hub import constants

    place = tmp_path_factory.mktemp("hub")
    episodes = [as_old_lerobot(motor_steps(12, seed)) for seed in range(8)]
    dataset = write_v3(place / "pickplace", episodes, fps=30, robot_type="so100", names=MAIN)
    lay_out_cache(place / "cache", "lerobot/svla_so100_pickplace", "dataset", dataset)
    for name, folder in smolvla_base(place).items():
        lay_out_cache(place / "cache", name.removeprefix("models/"), "model", folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(constants, "HF_HUB_CACHE", str(place / "cache"))
        patched.setattr(constants, "HF_HUB_OFFLINE", True)
        patched.delenv("ZK0_BASE", raising=False)
        yield place


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_runs_from_validate_to_track(profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zk0.study.studies import study_named

    params = smallest(profile, tmp_path / "params.yaml")
    (tmp_path / "models").symlink_to(REPO / "models")
    monkeypatch.chdir(tmp_path)

    for stage in STAGES:
        run_stage(stage, tmp_path, params)

    run = read_json(tmp_path / "results/federation/run.json")
    assert run["rounds"] == 2 and run["params"]["federation"]["strategy"] == params.federation.strategy
    evaluation = read_json(tmp_path / "results/evaluation.json")
    driven = {name: task["global"]["rollouts"] for name, task in evaluation["tasks"].items()}
    assert set(driven.values()) == {params.evaluation.rollouts}
    assert read_json(tmp_path / "results/tracking.json")["model"] == params.tracking.model
    # What its study compares beside it can be set; impossible changes are refused.
    assert len({arm.params(params).model_dump_json() for arm in study_named("comparison", params).arms}) > len(
        params.study.variants
    )
