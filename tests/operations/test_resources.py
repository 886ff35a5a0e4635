"""Resource allocation: reckoned from params and the policy's size, refused with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from zk0.environment.needs import trainable_bytes
from zk0.errors import StageError
from zk0.network.config import Resources
from zk0.operations.resources import allocate, gpu_share
from zk0.params import Params, with_changes

TIGHT = {"memory_reserve_bytes": 0, "disk_reserve_bytes": 0}


@pytest.fixture
def policy(tmp_path: Path, small_params: Params) -> Params:
    """Params whose policy has 4 trainable numbers and 1000 frozen ones."""
    tensors = {
        "model.vlm_with_expert.vlm.weight": np.zeros(1000, np.float32),
        "model.vlm_with_expert.lm_expert.weight": np.zeros(3, np.float32),
        "model.state_proj.bias": np.zeros(1, np.float32),
    }
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    return with_changes(small_params, {"policy.base": "base"})


def parts(root: Path, params: Params, sites: int = 2, **resources: Any) -> dict[str, dict[str, int]]:
    found = allocate(root, params, Resources(**{**TIGHT, **resources}), (), sites)
    return {need.name: need.parts for need in found}


def test_only_what_trains_counts_for_what_travels(tmp_path: Path, policy: Params) -> None:
    assert trainable_bytes(tmp_path, policy) == 16
    assert parts(tmp_path, policy)["disk"]["updates that wait"] == 2 * 2 * 16
    assert parts(tmp_path, policy, sites=10)["disk"]["updates that wait"] == 2 * 10 * 16


def test_the_estimate_is_what_a_policy_trains(tmp_path: Path, loaded: Any, small_params: Params) -> None:
    """For the embedded policy as built: the sum over its trainable tensors."""
    from zk0.policy.checkpoint import save_checkpoint
    from zk0.policy.trainable import trainable_tensors

    save_checkpoint(loaded, tmp_path / "base")

    trained = sum(t.numel() * t.element_size() for t in trainable_tensors(loaded.policy).values())
    assert trainable_bytes(tmp_path, with_changes(small_params, {"policy.base": "base"})) == trained


def test_reserves_are_part_of_the_need(tmp_path: Path, policy: Params) -> None:
    found = parts(tmp_path, policy, memory_reserve_bytes=5, disk_reserve_bytes=7)

    assert found["memory"]["left to others"] == 5 and found["disk"]["left free"] == 7


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory_reserve_bytes": 10**15}, "memory: 931,3"),
        ({"disk_reserve_bytes": 10**15}, "disk: 931,3"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_figures(
    tmp_path: Path, policy: Params, resources: dict[str, int], words: str
) -> None:
    with pytest.raises(StageError) as refused:
        parts(tmp_path, policy, **resources)

    assert words in str(refused.value) and "does not fit; " in str(refused.value)


def test_a_gpu_that_is_not_there_does_not_fit(tmp_path: Path, policy: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    with pytest.raises(StageError, match=r"GPU memory: .* of 0.0 GiB .* does not fit; lower training.batch"):
        parts(tmp_path, with_changes(policy, {"policy.device": "cuda"}))


def test_processes_are_told_their_share_of_a_gpu() -> None:
    assert gpu_share(Resources(**TIGHT, gpu_share=0.5)) == {"ZK0_GPU_SHARE": "0.5"}
