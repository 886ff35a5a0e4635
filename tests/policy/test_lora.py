"""Low-rank adapters: what trains, what their average is, and that what is saved is a plain SmolVLA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from policy_on_frames import predict_chunk

from zk0.data.frames import Frames
from zk0.federation.statistics import moments_of
from zk0.params import TrainingParams
from zk0.policy.attention import covers
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, save_checkpoint, with_stats
from zk0.policy.lora import add_adapters, has_adapters, merged
from zk0.policy.start import load_start
from zk0.policy.trainable import Tensors, digest_tensors, load_trainable, trainable_tensors
from zk0.training.local import LocalTask, train_locally

RANK, ALPHA = 4, 8.0
LAYER = "model.vlm_with_expert.lm_expert.layers.1.mlp.down_proj"
ROWS = np.arange(3)


@pytest.fixture
def adapted(frames: Frames) -> LoadedPolicy:
    """The untrained policy with adapters that change what it computes."""
    policy = load_start(Path(), "random:nano", "cpu", RANK, ALPHA, seed=1).policy
    load_trainable(policy, drawn(policy, 1))
    return with_stats(policy, moments_of(frames).normalisation())


def drawn(policy: torch.nn.Module, seed: int) -> Tensors:
    """B matrices as a site might send them."""
    rng = torch.Generator().manual_seed(seed)
    return {n: 0.1 * torch.randn(t.shape, generator=rng) for n, t in trainable_tensors(policy).items()}


def actions(loaded: LoadedPolicy, frames: Frames) -> torch.Tensor:
    noise = torch.randn((len(ROWS), 8, 6), generator=torch.Generator().manual_seed(2))
    return predict_chunk(loaded, frames, ROWS, noise)


def test_only_b_matrices_of_the_expert_train(adapted: LoadedPolicy) -> None:
    """Four layers of 128 + 128 + 128 + 96 + 256 + 256 + 96 outputs, and 128 + 96 + 6 + 96 + 96 around them."""
    tensors = trainable_tensors(adapted.policy)

    assert all(name.endswith("lora_B.default.weight") for name in tensors)
    assert all(t.shape[1] == RANK and t.dtype == torch.float32 for t in tensors.values())
    assert sum(t.numel() for t in tensors.values()) == RANK * (4 * 1088 + 422)
    assert not any(".vlm." in name for name in tensors)


def test_new_adapters_change_nothing(frames: Frames) -> None:
    stats = moments_of(frames).normalisation()
    plain = with_stats(load_start(Path(), "random:nano", "cpu").policy, stats)
    fresh = with_stats(load_start(Path(), "random:nano", "cpu", RANK, ALPHA, seed=1).policy, stats)

    torch.testing.assert_close(actions(fresh, frames), actions(plain, frames), rtol=0, atol=0)


def test_frozen_half_belongs_to_the_seed() -> None:
    def half(seed: int) -> str:
        policy = load_start(Path(), "random:nano", "cpu", RANK, ALPHA, seed).policy
        return digest_tensors({n: t for n, t in policy.state_dict().items() if "lora_A" in n})

    assert half(1) == half(1) != half(2)


def merged_weight(policy: torch.nn.Module) -> torch.Tensor:
    with merged(policy):
        return policy.get_parameter(f"{LAYER}.weight").detach()


def test_average_of_the_products_is_the_product_of_the_average(adapted: LoadedPolicy) -> None:
    """Two sites' merged weights average to the merged weights of the averaged B."""
    policy = adapted.policy
    sites = [drawn(policy, 1), drawn(policy, 2)]
    weights = []
    for site in sites:
        load_trainable(policy, site)
        weights.append(merged_weight(policy))

    load_trainable(policy, {n: (sites[0][n] + sites[1][n]) / 2 for n in sites[0]})

    assert not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(merged_weight(policy), (weights[0] + weights[1]) / 2)


def test_merged_weight_is_its_formula(adapted: LoadedPolicy) -> None:
    policy = adapted.policy
    layer = policy.get_submodule(LAYER)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # type: ignore[union-attr,index]

    expected = layer.base_layer.weight + ALPHA / RANK * b @ a  # type: ignore[union-attr,operator]

    torch.testing.assert_close(merged_weight(policy), expected.detach())


def test_merging_for_a_while_leaves_no_trace(adapted: LoadedPolicy, frames: Frames) -> None:
    policy = adapted.policy
    before, state = actions(adapted, frames), digest_tensors(policy.state_dict())
    plain_names = load_start(Path(), "random:nano", "cpu").policy.state_dict().keys()

    with pytest.raises(RuntimeError, match="inside"), merged(policy):
        assert policy.state_dict().keys() == plain_names and not has_adapters(policy)
        torch.testing.assert_close(actions(adapted, frames), before, rtol=1e-4, atol=1e-5)
        raise RuntimeError("inside")

    assert digest_tensors(policy.state_dict()) == state
    assert torch.equal(actions(adapted, frames), before)


def test_merging_a_plain_policy_does_nothing(loaded: LoadedPolicy) -> None:
    state = digest_tensors(loaded.policy.state_dict())

    with merged(loaded.policy):
        assert digest_tensors(loaded.policy.state_dict()) == state
    assert digest_tensors(loaded.policy.state_dict()) == state


def test_saved_checkpoint_is_a_plain_smolvla(adapted: LoadedPolicy, frames: Frames, tmp_path: Path) -> None:
    before = actions(adapted, frames)

    save_checkpoint(adapted, tmp_path / "checkpoint")

    again = load_checkpoint(tmp_path / "checkpoint")
    assert not has_adapters(again.policy) and has_adapters(adapted.policy)
    assert (
        trainable_tensors(again.policy).keys()
        == trainable_tensors(load_start(Path(), "random:nano", "cpu").policy).keys()
    )
    torch.testing.assert_close(actions(again, frames), before, rtol=1e-4, atol=1e-5)


def test_trains_through_the_split_forward(adapted: LoadedPolicy, frames: Frames) -> None:
    assert covers(adapted.policy) is None
    frozen = digest_tensors({n: p.detach() for n, p in adapted.policy.named_parameters() if not p.requires_grad})
    settings = TrainingParams(local_steps=12, batch=4, warmup_steps=0, learning_rate=5e-3, final_learning_rate=5e-3)
    task = LocalTask(seed=1, partition=0, round=1, training=settings, decay_steps=24)

    first = train_locally(adapted, frames, trainable_tensors(adapted.policy), task)
    second = train_locally(adapted, frames, first.tensors, task)

    assert second.loss < 0.9 * first.loss
    assert frozen == digest_tensors(
        {n: p.detach() for n, p in adapted.policy.named_parameters() if not p.requires_grad}
    )


def test_adapters_on_adapters_are_refused(adapted: LoadedPolicy) -> None:
    with pytest.raises(ValueError, match="merge them before"):
        add_adapters(adapted.policy, RANK, ALPHA, seed=1)


@pytest.mark.parametrize("rank", [-1, 96])
def test_rank_that_does_not_fit_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"lora_rank is {rank}, but has to be from 1 to 95"):
        load_start(Path(), "random:nano", "cpu", rank)
