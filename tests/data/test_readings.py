"""The motors' steps show in joint values, and tell how those were written."""

from __future__ import annotations

import numpy as np
import pytest
from so100_recordings import RANGES, as_lerobot, as_old_lerobot, motor_steps

from zk0.data.readings import by_episode, read_steps
from zk0.so100 import ARM_JOINTS

MEASURED = {joint: RANGES[joint][1] - RANGES[joint][0] for joint in ARM_JOINTS}


@pytest.mark.parametrize("seed", range(8))
def test_degrees_by_lerobots_bus(seed: int) -> None:
    found = read_steps(as_lerobot(motor_steps(60, seed), "degrees"))

    assert found.convention == "degrees" and not found.ranges
    assert "of 360/4095 (degrees)" in found.in_words()


@pytest.mark.parametrize("seed", range(8))
def test_normalised_by_lerobots_bus_with_the_ranges(seed: int) -> None:
    found = read_steps(as_lerobot(motor_steps(60, seed), "range_m100_100"))

    assert found.convention == "normalised"
    assert found.ranges == {joint: MEASURED[joint] for joint in found.ranges}
    assert len(found.ranges) >= 4  # one that stood at its end most of the time tells nothing


@pytest.mark.parametrize("seed", range(8))
def test_degrees_of_old(seed: int) -> None:
    assert read_steps(as_old_lerobot(motor_steps(60, seed))).convention == "so100-old"


def test_an_inverted_joint_is_measured_alike() -> None:
    values = as_lerobot(motor_steps(80, 3), "range_m100_100", elbow_flex=1)

    assert read_steps(values).ranges["elbow_flex"] == MEASURED["elbow_flex"]


def test_a_range_of_200_degrees_is_degrees_under_either_name() -> None:
    ranges = RANGES | {"elbow_flex": (900, 3175)}
    steps = motor_steps(80, 1, ranges)

    normalised, degrees = (as_lerobot(steps, mode, ranges)[:, 2] for mode in ("range_m100_100", "degrees"))

    assert np.allclose(normalised, degrees, atol=1e-4)
    assert read_steps(as_lerobot(steps, "range_m100_100", ranges)).votes["elbow_flex"] == "degrees"


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(0, 30, (200, 6)),
        np.random.default_rng(1).normal(0, 30, (200, 6)).round(1),
        np.random.default_rng(1).integers(-90, 90, (200, 6)).astype(float),
        np.cumsum(np.random.default_rng(1).normal(0, 1, (200, 6)), axis=0).astype(np.float32),
    ],
    ids=["noise", "one-decimal", "whole", "walk"],
)
def test_what_no_motor_wrote_tells_nothing(values: np.ndarray) -> None:
    found = read_steps(values)

    assert found.convention is None and not found.votes
    assert "no joint lie on a grid that a motor's steps leave" in found.in_words()


def test_readings_that_were_smoothed_tell_nothing() -> None:
    values = as_lerobot(motor_steps(100), "degrees").astype(np.float64)

    assert read_steps((values[1:] + 2 * values[:-1]) / 3).convention is None


def test_an_arm_that_hardly_moves_tells_nothing() -> None:
    steps = np.repeat(motor_steps(10), 5, axis=0)

    found = read_steps(as_lerobot(steps, "degrees"))

    assert found.convention is None and found.still == ARM_JOINTS
    assert found.in_words() == "only 0 of 5 joints moved enough to tell by their motors' steps"


def test_a_glitch_on_the_bus_does_not_hide_the_rest() -> None:
    values = as_lerobot(motor_steps(300), "degrees")
    values[7] += 0.031

    assert read_steps(values).convention == "degrees"


def test_joints_that_disagree_agree_on_nothing() -> None:
    steps = motor_steps(60)
    values = as_lerobot(steps, "degrees")
    values[:, 3:5] = as_lerobot(steps, "range_m100_100")[:, 3:5]

    found = read_steps(values)

    assert found.convention is None and set(found.votes.values()) == {"degrees", "normalised"}


def test_episodes_written_by_different_conventions_are_told_apart() -> None:
    steps = [motor_steps(40, seed) for seed in range(4)]
    parts = [as_lerobot(one, mode) for one, mode in zip(steps, ["range_m100_100"] * 2 + ["degrees"] * 2, strict=True)]
    bounds = {episode: (40 * episode, 40 * episode + 40) for episode in range(4)}

    assert by_episode(np.concatenate(parts), bounds) == [(0, 1, "normalised"), (2, 3, "degrees")]
