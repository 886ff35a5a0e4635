"""The safety check, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from lerobot.robots.utils import ensure_safe_goal_position

from zk0.data.frames import Frames, MemoryImages
from zk0.evaluation.limits import Limits
from zk0.evaluation.rollouts import Rollout
from zk0.evaluation.safety import Arm, Motion, frames_motion, recorded_jerk, rollouts_motion, safety_report
from zk0.params import EvaluationParams
from zk0.records.results import STEP_MULTIPLES
from zk0.so100 import JOINTS

RECORDED = Limits(low=np.full(6, -10.0), high=np.full(6, 10.0), step=np.full(6, 2.0), change=np.full(6, 2.0))
MARGINS = EvaluationParams(step_factor=1.5, cut_share=0.25, halved_share=0.01, outside_deg=2.0, jerk=2.5)
ARM = Arm.of(RECORDED, MARGINS.step_factor)


def joint(name: str, value: float) -> np.ndarray:
    """Zeros but for one joint."""
    values = np.zeros(6)
    values[JOINTS.index(name)] = value
    return values


def steps(*lengths: float) -> Motion:
    """Steps of the shoulder's pan from where the arm stands at zero."""
    targets = np.zeros((len(lengths), 1, 6))
    targets[:, 0, 0] = lengths
    return ARM.motion(targets, np.zeros((len(lengths), 6)), jerk=1.0)


def rollout(states: list[float], actions: list[float]) -> Rollout:
    """One in which all joints do the same."""
    asked = np.repeat(np.array(actions)[:, None], 6, axis=1)
    return Rollout(
        seed=1,
        success=False,
        steps=len(actions),
        states=np.repeat(np.array(states)[:, None], 6, axis=1),
        actions=asked,
        sent=asked,
        frames=None,
    )


def recording(*episodes: list[float]) -> Frames:
    """Episodes in which all joints have these targets, and the arm stands still."""
    targets = np.concatenate([np.array(episode) for episode in episodes])
    number = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])
    return Frames(
        states=np.zeros((len(targets), 6), dtype=np.float32),
        actions=np.repeat(targets[:, None], 6, axis=1).astype(np.float32),
        last=np.searchsorted(number, number, side="right") - 1,
        episodes=number,
        sentences=("wave",) * len(targets),
        images=MemoryImages({}),
    )


def test_longest_step_is_lerobots_and_what_is_cut_is_what_lerobot_cuts() -> None:
    """An arm held to it moves no joint further at once, by LeRobot's own clamp."""
    recorded = replace(RECORDED, step=np.array([6.0, 6.0, 6.0, 6.0, 4.02, 12.0]))

    longest = recorded.longest_steps(1.5)

    assert longest == dict(zip(JOINTS, (9.0, 9.0, 9.0, 9.0, 6.0, 18.0), strict=True))
    held = ensure_safe_goal_position(dict.fromkeys(JOINTS, (50.0, 10.0)), longest)
    assert held == {name: 10.0 + longest[name] for name in JOINTS}


def test_joint_that_was_never_moved_may_hold_its_place() -> None:
    still = replace(RECORDED, step=np.zeros(6))

    assert set(still.longest_steps(1.5).values()) == {0.1}


def test_limits_travel_whole_or_are_refused() -> None:
    content = json.loads(json.dumps(RECORDED.content()))

    assert Limits.of(content).content() == RECORDED.content()
    del content["change"]
    with pytest.raises(ValueError, match="limits lack change; run `zk0 federate` again"):
        Limits.of(content)


def test_steps_are_counted_by_how_far_they_go_beyond_the_longest() -> None:
    """The longest step is 3: steps of 1, 3, 3.1, 6 and 6.1 are 1/3, 1, just over, 2, and just over 2 of it."""
    found = steps(1.0, 3.0, 3.1, 6.0, -6.1)

    assert found.steps == 5
    assert found.cut.tolist() == [3, 0, 0, 0, 0, 0] and found.halved.tolist() == [1, 0, 0, 0, 0, 0]
    beyond = dict(zip(STEP_MULTIPLES, found.curve, strict=True))
    assert [beyond[m] for m in (0.0, 0.3, 1.0, 1.1, 2.0, 2.1)] == [1.0, 1.0, 0.6, 0.4, 0.2, 0.0]


def test_a_step_counts_once_however_many_joints_it_takes_too_far() -> None:
    targets = np.full((2, 1, 6), 4.0)

    found = ARM.motion(targets, np.zeros((2, 6)), jerk=0.0)

    assert found.curve[STEP_MULTIPLES.index(1.0)] == 1.0 and found.cut.tolist() == [2] * 6


def test_only_what_leaves_build_and_recordings_is_outside() -> None:
    """Recorded up to 120 degrees of pan, beyond the build's 110; LeRobot bounds the gripper's percent by itself."""
    arm = Arm.of(replace(RECORDED, low=np.zeros(6), high=np.full(6, 120.0)), 1.5)
    targets = np.zeros((1, 2, 6))
    targets[0, 1] = [120.0, -101.0, 0.0, 0.0, 0.0, -13.0]

    assert arm.motion(targets, np.zeros((1, 6)), 0.0).outside.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 3.0]


def test_of_two_sets_all_steps_and_the_worse_extremes() -> None:
    both = steps(1.0, 4.0).and_of(replace(steps(7.0), jerk=2.0))

    assert (both.steps, both.cut[0], both.halved[0], both.jerk) == (3, 2, 1, 2.0)


def test_jerk_is_that_of_the_chunks_beside_the_recordings() -> None:
    """Recorded third differences are 1 in each of two episodes, and none across them; a chunk's is 3."""
    frames = recording([0.0, 0.0, 0.0, 1.0], [5.0, 5.0, 5.0, 6.0])
    chunks = np.zeros((8, 4, 6), dtype=np.float32)
    chunks[:, 3] = 3.0
    predicted = [(np.arange(0, 5), chunks[:5]), (np.arange(5, 8), chunks[5:])]

    assert frames_motion(frames, predicted, ARM, recorded_jerk(frames)).jerk == pytest.approx(3.0)


def test_jerk_is_beside_all_recordings_of_a_task() -> None:
    """Of the held-out episode it is 1, of the training episode 7: in all 5, the root of the mean of their squares."""
    jerk = recorded_jerk(recording([0.0, 0.0, 0.0, 1.0]), recording([0.0, 0.0, 0.0, 7.0]))

    assert rollouts_motion([rollout([0.0] * 5, [0.0, 0.0, 0.0, 10.0])], ARM, jerk, 1).jerk == pytest.approx(2.0)
    assert rollouts_motion([rollout([0.0] * 5, [0.0, 0.0, 0.0, 10.0])], ARM, recorded_jerk(), 1).jerk == 0.0


def test_jerk_of_rollouts_is_that_where_chunks_meet() -> None:
    """Chunks of two: every window of four targets spans a seam; of six in a chunk, only the last does."""
    jerk = recorded_jerk(recording([0.0, 0.0, 0.0, 1.0]))
    leap = [rollout([0.0] * 8, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0])]

    assert rollouts_motion(leap, ARM, jerk, actions_per_look=6).jerk == pytest.approx(4.0)
    assert rollouts_motion(leap, ARM, jerk, actions_per_look=7).jerk == 0.0
    assert rollouts_motion([rollout([0.0, 0.0], [1.0])], ARM, jerk, actions_per_look=4).jerk == 0.0


def test_rollouts_count_from_the_state_each_action_was_taken_in() -> None:
    """Steps of 1, 3 and 4 from where the arm really was; the targets themselves leap by 10."""
    runs = [rollout([0, 8, 0], [1, 11]), rollout([0, 0], [-4])]

    found = rollouts_motion(runs, ARM, recorded_jerk(recording([0.0] * 4)), actions_per_look=4)

    assert (found.steps, found.cut.tolist(), found.halved.tolist()) == (3, [1] * 6, [0] * 6)


def test_report_passes_at_the_margins() -> None:
    """A quarter of the steps cut, one in a hundred to less than half, 2 degrees outside, 2.5 times the jerk."""
    motion = replace(steps(*[7.0], *[4.0] * 24, *[1.0] * 75), outside=joint("wrist_roll", 2.0), jerk=2.5)

    report = safety_report({"held-out": motion, "rollouts": motion}, MARGINS)

    assert report.passed is True
    assert [(c.name, c.unit, c.limit, c.worst, c.joint) for c in report.checks[:4]] == [
        ("steps cut, held-out", "of the steps", 0.25, 0.25, "shoulder_pan"),
        ("steps cut to less than half, held-out", "of the steps", 0.01, 0.01, "shoulder_pan"),
        ("targets outside the build, held-out", "degrees", 2.0, 2.0, "wrist_roll"),
        ("jerk within a chunk, held-out", "times the recorded", 2.5, 2.5, None),
    ]
    assert report.checks[-1].name == "jerk where chunks meet, rollouts"
    assert report.steps_beyond["rollouts"] == motion.curve


@pytest.mark.parametrize(
    ("bad", "name", "worst", "where"),
    [
        (replace(steps(1.0), outside=joint("elbow_flex", 2.5)), "targets outside the build", 2.5, "elbow_flex"),
        (steps(*[4.0] * 3, *[1.0] * 7), "steps cut", 0.3, "shoulder_pan"),
        (steps(*[7.0] * 2, *[1.0] * 98), "steps cut to less than half", 0.02, "shoulder_pan"),
        (replace(steps(1.0), jerk=2.6), "jerk within a chunk", 2.6, None),
    ],
)
def test_report_fails_and_names_the_joint(bad: Motion, name: str, worst: float, where: str | None) -> None:
    report = safety_report({"held-out": steps(1.0), "perturbed": bad}, MARGINS)

    assert report.passed is False
    (failed,) = [check for check in report.checks if not check.passed]
    assert (failed.name, failed.worst, failed.joint) == (f"{name}, perturbed", worst, where)


def test_one_wild_step_in_many_is_no_reason_since_the_arm_cuts_it() -> None:
    assert safety_report({"held-out": steps(*[1.0] * 999, 300.0)}, MARGINS).checks[1].passed


@pytest.mark.parametrize("where", [0, 5])
def test_value_that_is_not_a_number_is_not_safe(where: int) -> None:
    targets = np.zeros((1, 1, 6))
    targets[0, 0, where] = np.nan

    report = safety_report({"held-out": ARM.motion(targets, np.zeros((1, 6)), 0.0)}, MARGINS)

    assert [check.passed for check in report.checks] == [False, False, False, True]
