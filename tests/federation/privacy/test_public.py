"""Under privacy the normalisation comes from the starting policy or from the arm's build, and from no site."""

from __future__ import annotations

import numpy as np
import pytest

from zk0.data.units import JOINT_HIGH, JOINT_LOW
from zk0.errors import StageError
from zk0.federation.statistics import public_moments
from zk0.policy.checkpoint import LoadedPolicy, own_stats, with_stats


def test_trained_policy_brings_its_own(loaded: LoadedPolicy) -> None:
    found = public_moments(loaded, trained=True, fps=10).normalisation()

    own = own_stats(loaded)
    for feature in ("observation.state", "action"):
        for name in ("mean", "std"):
            np.testing.assert_allclose(found[feature][name], own[feature][name], rtol=1e-6)


def test_untrained_policy_gets_the_joints_ranges(loaded: LoadedPolicy) -> None:
    found = public_moments(loaded, trained=False, fps=30)

    stats = found.normalisation()["action"]
    np.testing.assert_allclose(stats["mean"], [0, 0, 0, 0, 0, 50])
    np.testing.assert_allclose(stats["std"][5], 100 / 12**0.5, rtol=1e-6)
    assert (found.limits().low == JOINT_LOW).all() and (found.limits().high == JOINT_HIGH).all()
    np.testing.assert_allclose(found.limits().step, 9.0)
    np.testing.assert_allclose(found.limits().change, 9.0)


def test_policy_for_another_arm_is_refused(loaded: LoadedPolicy) -> None:
    other = {f: {"mean": np.zeros(7), "std": np.ones(7)} for f in ("observation.state", "action")}

    with pytest.raises(StageError, match=r"has no mean and std of its own of observation\.state for 6 joints"):
        public_moments(with_stats(loaded.policy, other), trained=True, fps=10)
    with pytest.raises(StageError, match="start from a policy that was trained on an SO-100"):
        public_moments(with_stats(loaded.policy, {}), trained=True, fps=10)
