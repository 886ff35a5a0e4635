"""The safety check, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from zk0.data.sim.arm import JOINTS
from zk0.evaluation.held_out import Excess, Limits, chunk_excess
from zk0.evaluation.rollouts import Rollout
from zk0.evaluation.safety import rollout_excess, safety_report
from zk0.params import EvaluationParams

TWO = Limits(low=np.array([-10.0, 0.0]), high=np.array([10.0, 100.0]), step=np.array([2.0, 4.0]))
SIX = Limits(low=np.full(6, -10.0), high=np.full(6, 10.0), step=np.full(6, 2.0))
MARGINS = EvaluationParams(joint_margin_deg=5.0, velocity_factor=1.5)


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
        distance_m=0.0,
        frames=None,
    )


def test_excess_of_a_chunk() -> None:
    """From (-1, 50) to (0, 50) to (13, -1): 3 and 1 outside; steps of up to 13 and 51."""
    chunks = np.array([[[0.0, 50.0], [13.0, -1.0]]])

    excess = chunk_excess(chunks, np.array([[-1.0, 50.0]]), TWO)

    assert excess.range_deg.tolist() == [3.0, 1.0]
    assert excess.velocity.tolist() == [13 / 2, 51 / 4]


def test_worst_of_many_chunks_counts() -> None:
    chunks = np.array([[[0.0, 50.0]], [[-12.0, 50.0]], [[0.0, 103.0]]])

    excess = chunk_excess(chunks, chunks[:, 0], TWO)

    assert excess.range_deg.tolist() == [2.0, 3.0]
    assert excess.velocity.tolist() == [0.0, 0.0]


def test_joint_that_was_never_moved_has_almost_no_allowance() -> None:
    still = Limits(low=np.array([0.0]), high=np.array([1.0]), step=np.array([0.0]))

    assert chunk_excess(np.array([[[0.5]]]), np.array([[0.0]]), still).velocity.tolist() == [500.0]


def test_worst_is_taken_joint_by_joint() -> None:
    one, other = Excess(np.array([1.0, 5.0]), np.array([0.2, 0.1])), Excess(np.array([2.0, 0.0]), np.array([0.1, 0.3]))

    worst = one.worst(other)

    assert worst.range_deg.tolist() == [2.0, 5.0] and worst.velocity.tolist() == [0.2, 0.3]


def test_rollouts_count_from_the_state_each_action_was_taken_in() -> None:
    """Steps of 1, 3 and 1 from where the arm really was; the targets themselves leap by 12."""
    runs = [rollout([0, 8, 0], [1, 11]), rollout([0, 0], [-1])]

    excess = rollout_excess(runs, SIX)

    assert excess.range_deg.tolist() == [1.0] * 6
    assert excess.velocity.tolist() == [1.5] * 6


def test_report_passes_at_the_margin() -> None:
    report = safety_report({"held-out": Excess(joint("wrist_roll", 5.0), np.full(6, 1.5))}, MARGINS)

    assert report["passed"] is True
    assert report["checks"] == [
        {
            "name": "joint ranges, held-out",
            "unit": "degrees outside",
            "limit": 5.0,
            "worst": 5.0,
            "passed": True,
            "joint": "wrist_roll",
        },
        {
            "name": "joint speed, held-out",
            "unit": "times the fastest recorded",
            "limit": 1.5,
            "worst": 1.5,
            "passed": True,
            "joint": "shoulder_pan",
        },
    ]


@pytest.mark.parametrize(
    ("bad", "name", "worst", "where"),
    [
        (Excess(joint("elbow_flex", 5.5), np.zeros(6)), "joint ranges, rollouts", 5.5, "elbow_flex"),
        (Excess(np.zeros(6), joint("gripper", 2.0)), "joint speed, rollouts", 2.0, "gripper"),
    ],
)
def test_report_fails_and_names_the_joint(bad: Excess, name: str, worst: float, where: str) -> None:
    fine = Excess(np.zeros(6), np.zeros(6))

    report = safety_report({"held-out": fine, "rollouts": bad}, MARGINS)

    assert report["passed"] is False
    (failed,) = [check for check in report["checks"] if not check["passed"]]
    assert (failed["name"], failed["worst"], failed["joint"]) == (name, worst, where)
    assert [check["joint"] for check in report["checks"][:2]] == [None, None]


def test_value_that_is_not_a_number_is_not_safe() -> None:
    report = safety_report({"held-out": Excess(joint("gripper", float("nan")), np.zeros(6))}, MARGINS)

    assert report["passed"] is False
