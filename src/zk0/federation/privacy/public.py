"""A normalisation and joint limits that no site's data goes into.

A site's count, mean and squared deviations tell of its data as an update does, and to hide them in noise costs a
round's worth of privacy for a few dozen numbers. Under privacy they are not asked for: the starting policy brings
its own normalisation, which is public as it is, and where it has learnt none the arm's build gives one.
"""

from __future__ import annotations

import numpy as np

from zk0.data.frames import ACTION, STATE
from zk0.data.units import JOINT_HIGH, JOINT_LOW, servo_turn
from zk0.errors import StageError
from zk0.federation.statistics import Moments
from zk0.policy.checkpoint import LoadedPolicy, own_stats


def public_moments(loaded: LoadedPolicy, trained: bool, fps: int) -> Moments:
    """Moments as the sites' merged ones, of public knowledge alone.

    Args:
        loaded: The starting policy.
        trained: It learnt a normalisation of its own; else mean and spread are those of even use of the joints' ranges.
        fps: Frames a second, for the largest step of a joint from one to the next.

    Raises:
        StageError: The policy's own normalisation is missing or is not for this arm.
    """
    mean, deviation = {}, {}
    for feature in (STATE, ACTION):
        if trained:
            mean[feature], deviation[feature] = _own(loaded, feature)
        else:
            mean[feature] = (JOINT_LOW + JOINT_HIGH) / 2
            deviation[feature] = (JOINT_HIGH - JOINT_LOW) / np.sqrt(12)
    return Moments(
        count=np.array(1.0),
        mean_state=mean[STATE],
        m2_state=deviation[STATE] ** 2,
        mean_action=mean[ACTION],
        m2_action=deviation[ACTION] ** 2,
        low=JOINT_LOW,
        high=JOINT_HIGH,
        step=np.full(JOINT_LOW.shape, servo_turn(fps)),
        change=np.full(JOINT_LOW.shape, servo_turn(fps)),
    )


def _own(loaded: LoadedPolicy, feature: str) -> tuple[np.ndarray, np.ndarray]:
    found = {name: np.asarray(value, dtype=np.float64) for name, value in own_stats(loaded).get(feature, {}).items()}
    if any(name not in found or found[name].shape != JOINT_LOW.shape for name in ("mean", "std")):
        raise StageError(
            "under privacy no site is asked for its statistics, and the starting policy has no mean and std of its own "
            f"of {feature} for {len(JOINT_LOW)} joints; start from a policy that was trained on an SO-100 or SO-101"
        )
    return found["mean"], found["std"]
