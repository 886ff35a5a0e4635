"""The safety check, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from lerobot.robots.utils import ensure_safe_goal_position

from zk0.evaluation.held_out import Excess, Limits, chunk_excess
from zk0.evaluation.judge import rollout_excess, safety_report, step_limits
from zk0.evaluation.rollouts import Rollout
from zk0.params import EvaluationParams
from zk0.so100 import JOINTS

TWO = Limits(
    low=np.array([-10.0, 0.0]), high=np.array([10.0, 100.0]), step=np.array([2.0, 4.0]), change=np.array([4.0, 8.0])
)
SIX = Limits(low=np.full(6, -10.0), high=np.full(6, 10.0), step=np.full(6, 2.0), change=np.full(6, 2.0))
MARGINS = EvaluationParams(joint_margin_deg=5.0, velocity_factor=1.5, velocity_share=0.05, velocity_limit=3.0)


def excess(
    outside: np.ndarray | None = None, speed: np.ndarray | None = None, fast: np.ndarray | None = None
) -> Excess:
    """Of 200 steps; zeros where nothing is said."""
    zeros = np.zeros(6)
    given = [zeros if values is None else values for values in (outside, speed, fast)]
    return Excess(given[0], given[1], given[2], steps=200)


def joint(name: str, value: float) -> np.ndarray:
    """Zeros but for one joint."""
    values = np.zeros(6)
    values[JOINTS.index(name)] = value
    return values


def rollout(states: list[float], actions: list[float]) -> Rollout:
    """One in which all joints do the same."""
    return Rollout(
        seed=1,
        success=False,
        steps=len(actions),
        states=np.repeat(np.array(states)[:, None], 6, axis=1),
        actions=np.repeat(np.array(actions)[:, None], 6, axis=1),
        frames=None,
    )


def test_excess_of_a_chunk() -> None:
    """From (-1, 50) to (4, 50) to (13, -1): 3 and 1 outside; a step of 5 and 0, then changes of 9 and 51."""
    chunks = np.array([[[4.0, 50.0], [13.0, -1.0]]])

    found = chunk_excess(chunks, np.array([[-1.0, 50.0]]), TWO, factor=1.5)

    assert found.range_deg.tolist() == [3.0, 1.0]
    assert found.velocity.tolist() == [5 / 2, 51 / 8]
    assert (found.fast.tolist(), found.steps) == ([1, 0], 1)


def test_worst_of_many_chunks_counts() -> None:
    chunks = np.array([[[0.0, 50.0]], [[-12.0, 50.0]], [[0.0, 103.0]]])

    found = chunk_excess(chunks, chunks[:, 0], TWO, factor=1.5)

    assert found.range_deg.tolist() == [2.0, 3.0]
    assert found.velocity.tolist() == [0.0, 0.0]
    assert (found.fast.tolist(), found.steps) == ([0, 0], 3)


def test_joint_that_was_never_moved_has_almost_no_allowance() -> None:
    still = Limits(low=np.array([0.0]), high=np.array([1.0]), step=np.array([0.0]), change=np.array([0.0]))

    assert chunk_excess(np.array([[[0.5]]]), np.array([[0.0]]), still, 1.5).velocity.tolist() == [500.0]


def test_a_step_of_just_the_factor_is_not_fast() -> None:
    chunks = np.array([[[3.0, 50.0]], [[3.1, 50.0]]])

    assert chunk_excess(chunks, np.array([[0.0, 50.0]] * 2), TWO, factor=1.5).fast.tolist() == [1, 0]


def test_of_two_sets_the_worse_extreme_and_all_counts() -> None:
    one = Excess(np.array([1.0, 5.0]), np.array([0.2, 0.1]), np.array([2, 0]), 10)
    other = Excess(np.array([2.0, 0.0]), np.array([0.1, 0.3]), np.array([1, 4]), 30)

    both = Excess.none(2).and_of(one).and_of(other)

    assert both.range_deg.tolist() == [2.0, 5.0] and both.velocity.tolist() == [0.2, 0.3]
    assert (both.fast.tolist(), both.steps) == ([3, 4], 40)


def test_limits_travel_whole_or_are_refused() -> None:
    content = json.loads(json.dumps(TWO.content()))

    assert Limits.of(content).content() == TWO.content()
    del content["change"]
    with pytest.raises(ValueError, match="limits lack change; run `zk0 federate` again"):
        Limits.of(content)


def test_rollouts_count_from_the_state_each_action_was_taken_in() -> None:
    """Steps of 1, 3 and 1 from where the arm really was; the targets themselves leap by 12."""
    runs = [rollout([0, 8, 0], [1, 11]), rollout([0, 0], [-1])]

    found = rollout_excess(runs, SIX, factor=1.2)

    assert found.range_deg.tolist() == [1.0] * 6
    assert found.velocity.tolist() == [1.5] * 6
    assert (found.fast.tolist(), found.steps) == ([1] * 6, 3)


def test_report_passes_at_the_margins() -> None:
    """5 degrees outside, 3 times the longest step once, and 10 of 200 steps over 1.5 times it."""
    found = excess(joint("wrist_roll", 5.0), np.full(6, 3.0), joint("gripper", 10))

    report = safety_report({"held-out": found}, MARGINS)

    assert report.passed is True
    assert [(c.name, c.limit, c.worst, c.joint) for c in report.checks] == [
        ("joint ranges, held-out", 5.0, 5.0, "wrist_roll"),
        ("fast steps, held-out", 0.05, 0.05, "gripper"),
        ("joint speed, held-out", 3.0, 3.0, "shoulder_pan"),
    ]
    assert [c.unit for c in report.checks] == [
        "degrees outside",
        "of steps over 1.5 times the longest recorded",
        "times the longest recorded step",
    ]


@pytest.mark.parametrize(
    ("bad", "name", "worst", "where"),
    [
        (excess(joint("elbow_flex", 5.5)), "joint ranges, rollouts", 5.5, "elbow_flex"),
        (excess(speed=joint("gripper", 3.2)), "joint speed, rollouts", 3.2, "gripper"),
        (excess(fast=joint("wrist_flex", 11)), "fast steps, rollouts", 0.055, "wrist_flex"),
    ],
)
def test_report_fails_and_names_the_joint(bad: Excess, name: str, worst: float, where: str) -> None:
    report = safety_report({"held-out": excess(), "rollouts": bad}, MARGINS)

    assert report.passed is False
    (failed,) = [check for check in report.checks if not check.passed]
    assert (failed.name, failed.worst, failed.joint) == (name, worst, where)
    assert [check.joint for check in report.checks[:3]] == [None] * 3


def test_one_long_step_in_many_is_no_reason_and_a_wild_one_is() -> None:
    """A thousand steps of half the longest recorded one, and one of 1.8 or of 3.5 times it."""
    steps = np.full((1000, 1, 6), 1.0)
    for last, passed in ((3.6, True), (7.0, False)):
        steps[-1] = last
        found = chunk_excess(steps, np.zeros((1000, 6)), SIX, MARGINS.velocity_factor)
        assert safety_report({"held-out": found}, MARGINS).passed is passed


def test_leaning_on_the_arms_limit_is_a_reason() -> None:
    """Every tenth step of 1.8 times the longest recorded one."""
    steps = np.full((1000, 1, 6), 1.0)
    steps[::10] = 3.6

    found = chunk_excess(steps, np.zeros((1000, 6)), SIX, MARGINS.velocity_factor)

    failed = [check.name for check in safety_report({"held-out": found}, MARGINS).checks if not check.passed]
    assert failed == ["fast steps, held-out"]


def test_value_that_is_not_a_number_is_not_safe() -> None:
    report = safety_report({"held-out": excess(joint("gripper", float("nan")))}, MARGINS)

    assert report.passed is False


def test_limit_for_the_arm_is_lerobots() -> None:
    """An arm held to it moves no joint further at once, by LeRobot's own clamp."""
    limits = step_limits(replace(SIX, step=np.array([6.0, 6.0, 6.0, 6.0, 4.02, 12.0])), MARGINS)

    assert limits == dict(zip(JOINTS, (9.0, 9.0, 9.0, 9.0, 6.0, 18.0), strict=True))
    wild = dict.fromkeys(JOINTS, (50.0, 10.0))
    held = ensure_safe_goal_position(wild, limits)
    assert held == {name: 10.0 + limits[name] for name in JOINTS}
