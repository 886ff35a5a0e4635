"""Inputs preprocessed once are, bit for bit, what LeRobot's preprocessor makes of each batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from zk0.data.frames import Frames
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.inputs import FrameInputs, Sentences, observed

LONGER = "touch the red cube, and then the green one"


@pytest.fixture
def mixed(frames: Frames) -> Frames:
    """The first ten frames with one instruction, the others with a longer one."""
    return dataclasses.replace(frames, sentences=(*frames.sentences[:10], *[LONGER] * (len(frames) - 10)))


@pytest.mark.parametrize("rows", [[3, 3, 5], [3, 12], [12, 13]], ids=["short", "both", "long"])
def test_batch_is_lerobots(loaded: LoadedPolicy, mixed: Frames, rows: list[int]) -> None:
    chosen = np.array([*rows, int(mixed.last[rows[0]])])
    expected = loaded.preprocess(mixed.batch(chosen, loaded.chunk))

    batch = FrameInputs(loaded, mixed).batch(chosen)

    assert batch.actions is not None and batch.is_pad is not None and batch.is_pad.any()
    assert torch.equal(batch.state, expected["observation.state"])
    assert torch.equal(batch.actions, expected["action"])
    assert torch.equal(batch.is_pad, expected["action_is_pad"])
    real = expected["observation.language.attention_mask"]
    assert torch.equal(batch.real, real) and batch.padded == (not real.all())
    assert torch.equal(batch.words[real], expected["observation.language.tokens"][real])
    assert batch.images.keys() == set(loaded.cameras) and batch.cameras == 2 and len(batch) == len(chosen)
    assert all(torch.equal(image, expected[camera]) for camera, image in batch.images.items())


def test_batch_to_act_on_has_no_actions(loaded: LoadedPolicy, frames: Frames) -> None:
    batch = FrameInputs(loaded, frames).batch(np.array([1]), with_actions=False).to("cpu")

    assert batch.actions is None and batch.is_pad is None and len(batch) == 1


def test_observation_is_that_of_the_recording(loaded: LoadedPolicy, mixed: Frames) -> None:
    rows = np.array([3, 12])

    seen = observed(loaded, mixed.batch(rows, loaded.chunk))

    expected = FrameInputs(loaded, mixed).batch(rows, with_actions=False)
    assert torch.equal(seen.state, expected.state) and torch.equal(seen.real, expected.real)
    assert torch.equal(seen.words[seen.real], expected.words[expected.real])
    assert seen.actions is None and seen.cameras == 2


def test_padding_on_the_left_is_moved_to_the_right(loaded: LoadedPolicy) -> None:
    step = next(step for step in loaded.preprocess.steps if hasattr(step, "padding_side"))
    plain = Sentences(loaded, ["touch", LONGER])
    step.padding_side = "left"
    try:
        moved = Sentences(loaded, ["touch", LONGER])
    finally:
        step.padding_side = "right"

    numbers = moved.numbers(["touch", LONGER])
    (words, real, padded), (expected, *_) = moved.batch(numbers), plain.batch(numbers)
    assert padded and torch.equal(words[real], expected[real]) and bool(real[:, 0].all())
