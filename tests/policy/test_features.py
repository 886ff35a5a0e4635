"""Cached image tokens change nothing but the time it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.data.frames import Frames, MemoryImages
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.policy.build import build_nano
from zk0.policy.checkpoint import LoadedPolicy, with_stats
from zk0.policy.features import batch_for, image_tokens, regime_holds
from zk0.training.local import flow_draws

ROWS = np.array([11, 3, 3, 20])
Loss = Callable[[], torch.Tensor]


@pytest.fixture
def losses(loaded: LoadedPolicy, frames: Frames) -> Iterator[tuple[Loss, Loss]]:
    """The loss of four frames: with their images, and with cached tokens."""
    noise, times = flow_draws(loaded.policy.config, len(ROWS), torch.Generator().manual_seed(1))

    def plain() -> torch.Tensor:
        return loaded.policy(loaded.preprocess(frames.batch(ROWS, loaded.chunk)), noise=noise, time=times)[0]

    def cached() -> torch.Tensor:
        with batch_for(loaded, frames, ROWS) as batch:
            assert not any("images" in name for name in batch)
            return loaded.policy(batch, noise=noise, time=times)[0]

    loaded.policy.train()
    yield plain, cached
    loaded.policy.zero_grad(set_to_none=True)


def gradients(loaded: LoadedPolicy, loss: Loss) -> tuple[float, dict[str, torch.Tensor]]:
    loaded.policy.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    return float(value), {n: p.grad.clone() for n, p in loaded.policy.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_those_of_the_images(loaded: LoadedPolicy, losses: tuple[Loss, Loss]) -> None:
    (plain, expected), (cached, found) = (gradients(loaded, loss) for loss in losses)

    assert cached == pytest.approx(plain, abs=1e-5)
    assert found.keys() == expected.keys() and found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


def test_tokens_tell_frames_apart(loaded: LoadedPolicy, frames: Frames) -> None:
    tokens = image_tokens(loaded, frames)

    assert tokens is not None
    top = tokens.tokens["observation.images.top"]
    assert top.shape[0] == len(frames) and top.dtype == torch.float32
    assert not torch.equal(top[0], top[len(frames) - 1])
    assert not torch.equal(top[0], tokens.tokens["observation.images.wrist"][0])


def test_tokens_are_computed_once(loaded: LoadedPolicy, frames: Frames) -> None:
    assert image_tokens(loaded, frames) is image_tokens(loaded, frames)
    assert image_tokens(loaded, replace(frames)) is not image_tokens(loaded, frames)


def test_policy_sees_again_afterwards(loaded: LoadedPolicy, frames: Frames) -> None:
    batch = loaded.preprocess(frames.batch(ROWS, loaded.chunk))
    before, _ = loaded.policy.prepare_images(dict(batch))

    with pytest.raises(RuntimeError, match="inside"), batch_for(loaded, frames, ROWS):
        raise RuntimeError("inside")

    after, _ = loaded.policy.prepare_images(dict(batch))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_images_on_demand_are_encoded_each_time(prepared: Path, loaded: LoadedPolicy) -> None:
    site = read_manifests(prepared)[0][0]
    lazy = load_frames(site, prepared, site.held_out_episodes, 0)

    assert image_tokens(loaded, lazy) is None
    with batch_for(loaded, lazy, np.arange(2)) as batch:
        assert batch["observation.images.top"].shape == (2, 3, 96, 96)


def test_cache_is_off_while_the_vision_encoder_trains(loaded: LoadedPolicy, frames: Frames) -> None:
    vision = loaded.policy.model.vlm_with_expert.get_vlm_model().vision_model
    parameter = next(vision.parameters())
    assert regime_holds(loaded.policy) and image_tokens(loaded, frames) is not None

    parameter.requires_grad_(True)
    try:
        assert not regime_holds(loaded.policy)
        assert image_tokens(loaded, frames) is None
        with batch_for(loaded, frames, ROWS) as batch:
            assert "observation.images.top" in batch
    finally:
        parameter.requires_grad_(False)


def test_policy_that_trains_whole_has_no_cache(loaded: LoadedPolicy, frames: Frames) -> None:
    vlm = Path(loaded.policy.config.vlm_model_name)
    whole = with_stats(build_nano(vlm, loaded.cameras, seed=0, frozen_backbone=False), {})

    assert image_tokens(whole, frames) is None


def test_missing_camera_is_left_out_on_both_ways(loaded: LoadedPolicy, frames: Frames) -> None:
    assert isinstance(frames.images, MemoryImages)
    top = "observation.images.top"
    one_eyed = replace(frames, images=MemoryImages({top: frames.images.arrays[top]}))
    noise, times = flow_draws(loaded.policy.config, len(ROWS), torch.Generator().manual_seed(1))

    with torch.no_grad():
        plain = loaded.policy(loaded.preprocess(one_eyed.batch(ROWS, loaded.chunk)), noise=noise, time=times)[0]
        with batch_for(loaded, one_eyed, ROWS) as batch:
            cached = loaded.policy(batch, noise=noise, time=times)[0]

    assert float(cached) == pytest.approx(float(plain), abs=1e-5)
