"""Judging on recorded frames, with a policy whose answers are known.

A SmolVLA whose last projection is zero has velocity zero everywhere: it answers with the noise it
was given, and its flow-matching loss is the distance of that noise to the action.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from computed_features import features_of
from lerobot.configs import NormalizationMode

from zk0.data.frames import ACTION, STATE, Frames
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.evaluation.held_out import SensorNoise, episode_errors, held_out_loss, mean_error, predictions
from zk0.evaluation.limits import Limits
from zk0.evaluation.safety import Arm, frames_motion, recorded_jerk
from zk0.federation.statistics import moments_of
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import FrameFeatures
from zk0.seeding import torch_rng
from zk0.training.local import flow_draws

SEED = 3


def action_errors(loaded: LoadedPolicy, frames: Frames, seed: int, features: FrameFeatures | None = None) -> np.ndarray:
    """Mean absolute error of the predicted actions, (6,)."""
    return mean_error(episode_errors(frames, predictions(loaded, frames, seed, features=features)))


def predict(
    loaded: LoadedPolicy,
    frames: Frames,
    rows: np.ndarray,
    noise: SensorNoise | None = None,
    features: FrameFeatures | None = None,
) -> np.ndarray:
    """The predicted chunks of some frames, (B, chunk, 6)."""
    ((_, chunks),) = predictions(loaded, frames, SEED, noise, features, [rows])
    return chunks


@pytest.fixture
def still(loaded: LoadedPolicy) -> LoadedPolicy:
    """The policy that answers with its noise."""
    with torch.no_grad():
        loaded.policy.model.action_out_proj.weight.zero_()
        loaded.policy.model.action_out_proj.bias.zero_()
    return loaded


@pytest.fixture
def few(frames: Frames) -> Frames:
    """The first episode's frames, so that all fit in one batch."""
    count = int(frames.last[0]) + 1
    assert 8 < count <= 32
    return replace(
        frames,
        states=frames.states[:count],
        actions=frames.actions[:count],
        last=frames.last[:count],
        episodes=frames.episodes[:count],
        sentences=frames.sentences[:count],
    )


def answer(frames: Frames, few: Frames) -> np.ndarray:
    """The noise, in LeRobot's units."""
    noise = torch.randn((len(few), 8, 6), generator=torch_rng(SEED, "action", 0)).numpy()
    stats = moments_of(frames).normalisation()[ACTION]
    return noise * stats["std"] + stats["mean"]


def test_predictions_are_in_lerobots_units(still: LoadedPolicy, frames: Frames, few: Frames) -> None:
    found = predict(still, few, np.arange(len(few)))

    assert found.shape == (len(few), 8, 6)
    np.testing.assert_allclose(found, answer(frames, few), rtol=1e-3, atol=1e-2)


def test_action_error_leaves_padding_out(still: LoadedPolicy, frames: Frames, few: Frames) -> None:
    expected = answer(frames, few)
    errors = [
        np.abs(expected[row, ahead] - few.actions[row + ahead])
        for row in range(len(few))
        for ahead in range(8)
        if row + ahead < len(few)
    ]

    np.testing.assert_allclose(action_errors(still, few, SEED), np.mean(errors, axis=0), rtol=1e-3)


def test_errors_of_episodes_are_theirs_and_their_mean_is_the_whole(still: LoadedPolicy, frames: Frames) -> None:
    by_episode = episode_errors(frames, predictions(still, frames, SEED))

    whole = action_errors(still, frames, SEED)
    assert sorted(by_episode) == np.unique(frames.episodes).tolist() and len(by_episode) > 1
    lengths = {episode: int((frames.episodes == episode).sum()) for episode in by_episode}
    # A chunk of 8 that starts in the last 7 frames reaches past the end.
    assert {e: count for e, (_, count) in by_episode.items()} == {e: 8 * n - 28 for e, n in lengths.items()}
    total = sum(error * count for error, count in by_episode.values())
    np.testing.assert_allclose(total / sum(count for _, count in by_episode.values()), whole, rtol=1e-9)


def test_loss_is_the_mean_over_frames_and_draws(still: LoadedPolicy, frames: Frames, few: Frames) -> None:
    """With velocity zero it is the mean square of noise less normalised action."""
    stats = moments_of(frames).normalisation()[ACTION]
    batch = few.batch(np.arange(len(few)), 8, with_images=False)
    actions = (batch[ACTION].numpy() - stats["mean"]) / stats["std"]
    valid = ~batch["action_is_pad"].numpy()
    losses = []
    for draw in range(2):
        noise, _ = flow_draws(still.policy.config, len(few), torch_rng(SEED, "held-out", draw, 0))
        square = (noise.numpy() - actions) ** 2
        losses += [square[row][valid[row]].mean() for row in range(len(few))]

    assert held_out_loss(still, few, draws=2, seed=SEED) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_same_draws_for_every_model(loaded: LoadedPolicy, few: Frames) -> None:
    once, again, other = (held_out_loss(loaded, few, draws=1, seed=seed) for seed in (SEED, SEED, SEED + 1))

    assert once == again != other


def test_all_frames_are_judged_in_batches(still: LoadedPolicy, prepared: Path) -> None:
    """More than one batch; the figures are finite and the last, smaller batch counts too."""
    first = read_manifests(prepared)[0][0]
    frames = load_frames(first, prepared, list(first.episode_digests), 10**9)
    assert 32 < len(frames) < 64

    assert np.isfinite(held_out_loss(still, frames, draws=1, seed=SEED))
    assert action_errors(still, frames, SEED).shape == (6,)


def test_motion_is_that_of_the_predictions(still: LoadedPolicy, frames: Frames, few: Frames) -> None:
    expected = answer(frames, few)
    arm = Arm.of(Limits(*(np.full(6, value) for value in (-10.0, 10.0, 10.0, 10.0))), 1.0)

    motion = frames_motion(few, predictions(still, few, SEED), arm, recorded_jerk(few))

    outside = np.maximum(arm.low - expected, expected - arm.high).clip(0).max(axis=(0, 1))
    np.testing.assert_allclose(motion.outside, outside, rtol=1e-3, atol=1e-2)
    steps = np.abs(expected[:, 0] - few.states)
    assert motion.steps == len(few) and motion.jerk > 0
    assert np.abs(motion.cut - (steps > 10).sum(axis=0)).max() <= 1  # a step may round across


def test_perturbation_changes_what_is_seen_and_is_repeatable(loaded: LoadedPolicy, few: Frames) -> None:
    rows = np.arange(4)
    states = few.states.copy()
    noises = (None, SensorNoise(0.05, 0.0), SensorNoise(0.05, 0.0), SensorNoise(0.0, 2.0), SensorNoise(0.0, 0.0))
    plain, images, again, joints, nothing = (predict(loaded, few, rows, noise) for noise in noises)

    assert np.array_equal(images, again)
    assert not np.allclose(images, plain) and not np.allclose(joints, plain)
    np.testing.assert_allclose(nothing, plain, rtol=1e-3, atol=1e-2)
    assert np.array_equal(few.states, states) and STATE == "observation.state"


@pytest.mark.parametrize("kind", ["tokens", "prefix"])
def test_features_stand_in_for_the_images(
    loaded: LoadedPolicy, frames: Frames, kind: Literal["tokens", "prefix"]
) -> None:
    rows, features = np.array([2, 7]), features_of(loaded, frames, kind)
    arm = Arm.of(Limits(*(np.full(6, value) for value in (-10.0, 10.0, 100.0, 100.0))), 1.0)

    loss, cached = (held_out_loss(loaded, frames, draws=2, seed=SEED, features=f) for f in (None, features))
    assert cached == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(
        predict(loaded, frames, rows, features=features),
        predict(loaded, frames, rows),
        rtol=1e-3,
        atol=1e-2,
    )
    np.testing.assert_allclose(
        action_errors(loaded, frames, SEED, features), action_errors(loaded, frames, SEED), rtol=1e-3
    )
    plain, quick = (
        frames_motion(frames, predictions(loaded, frames, SEED, features=f), arm, recorded_jerk(frames))
        for f in (None, features)
    )
    np.testing.assert_allclose(quick.outside, plain.outside, rtol=1e-3, atol=1e-2)
    assert quick.jerk == pytest.approx(plain.jerk, rel=1e-3)


def test_policy_that_runs_by_lerobots_forward_is_judged_alike(loaded: LoadedPolicy, few: Frames) -> None:
    """Which forward pass computes it does not change the loss."""
    expected = held_out_loss(loaded, few, draws=1, seed=SEED)
    loaded.policy.config.normalization_mapping["VISUAL"] = NormalizationMode.MEAN_STD
    try:
        found = held_out_loss(loaded, few, draws=1, seed=SEED)
    finally:
        loaded.policy.config.normalization_mapping["VISUAL"] = NormalizationMode.IDENTITY

    assert found == pytest.approx(expected, rel=1e-5)
