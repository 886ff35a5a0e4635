"""One normalisation for all sites, without their frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from zk0.data.frames import ACTION, STATE, Frames, MemoryImages
from zk0.federation.statistics import DEVIATION_FLOOR, Moments, merge_all, moments_of, pack_stats, unpack_stats


def frames_of(states: Any, actions: Any) -> Frames:
    """Frames that are only numbers."""
    count = len(states)
    return Frames(
        states=np.asarray(states, dtype=np.float32),
        actions=np.asarray(actions, dtype=np.float32),
        last=np.full(count, count - 1),
        episodes=np.zeros(count, dtype=int),
        sentences=("x",) * count,
        images=MemoryImages({}),
    )


def test_moments_of_three_frames() -> None:
    moments = moments_of(frames_of([[0, 1], [2, 1], [4, 1]], [[1, 1], [1, 1], [1, 7]]))

    assert moments.count == 3
    assert moments.mean_state.tolist() == [2, 1] and moments.m2_state.tolist() == [8, 0]
    assert moments.mean_action.tolist() == [1, 3] and moments.m2_action.tolist() == [0, 24]
    assert moments.low.tolist() == [0, 1] and moments.high.tolist() == [4, 7]
    assert moments.step.tolist() == [3, 6]  # from state 4 to action 1, from state 1 to action 7
    assert moments.change.tolist() == [0, 6]  # from action 1 to action 7


def test_change_from_one_episode_to_the_next_is_none() -> None:
    frames = frames_of([[0], [0], [0], [0]], [[1], [2], [9], [9.5]])

    assert moments_of(frames).change.tolist() == [7]
    assert moments_of(replace(frames, episodes=np.array([0, 0, 1, 1]))).change.tolist() == [1]
    assert moments_of(frames_of([[0]], [[1]])).change.tolist() == [0]


def test_merged_moments_are_those_of_all_frames() -> None:
    """Even where the values are large and the differences small."""
    rng = np.random.default_rng(1)
    parts = [1000 + site + rng.normal(scale=0.1, size=(count, 6)) for site, count in enumerate((5, 1, 40))]
    sites = [frames_of(part, part + 0.5) for part in parts]

    merged = merge_all([moments_of(site) for site in sites])

    states, actions = (
        np.concatenate([getattr(s, name) for s in sites]).astype(float) for name in ("states", "actions")
    )
    stats = merged.normalisation()
    assert merged.count == 46
    np.testing.assert_allclose(merged.mean_state, states.mean(0), rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(merged.m2_state / 46), states.std(0), rtol=1e-9)
    np.testing.assert_allclose(stats[STATE]["mean"], states.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats[ACTION]["std"], actions.std(0), rtol=1e-6)
    np.testing.assert_allclose(merged.low, states.min(0))
    np.testing.assert_allclose(merged.high, actions.max(0))
    np.testing.assert_allclose(merged.limits().step, np.abs(actions - states).max(0))
    changes = [np.abs(np.diff(s.actions.astype(float), axis=0)).max(0, initial=0) for s in sites]
    np.testing.assert_allclose(merged.limits().change, np.max(changes, axis=0))


def test_joint_that_never_moves_is_not_divided_by_zero() -> None:
    stats = moments_of(frames_of([[3, 0], [3, 2]], [[3, 0], [3, 2]])).normalisation()

    assert stats[STATE]["std"].tolist() == pytest.approx([DEVIATION_FLOOR, 1.0])
    assert stats[STATE]["std"].dtype == np.float32


def test_moments_survive_the_wire() -> None:
    moments = moments_of(frames_of([[0, 1], [2, 1]], [[1, 1], [1, 1]]))

    again = Moments.from_tensors(moments.to_tensors())

    for name, tensor in moments.to_tensors().items():
        assert torch.equal(tensor, again.to_tensors()[name]) and tensor.dtype == torch.float64


def test_normalisation_survives_the_wire() -> None:
    stats = moments_of(frames_of([[0, 1], [2, 1]], [[1, 1], [1, 1]])).normalisation()

    again = unpack_stats(pack_stats(stats))

    assert again.keys() == {STATE, ACTION}
    for feature, values in stats.items():
        for name, value in values.items():
            assert np.array_equal(again[feature][name], value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("low", None, "statistics lack 'low'"),
        ("m2_state", torch.tensor([float("nan"), 0.0]).double(), "statistics 'm2_state' are not finite"),
        ("count", torch.tensor(0.0).double(), "statistics are of no frames"),
    ],
)
def test_unsound_moments_are_refused(name: str, value: torch.Tensor | None, said: str) -> None:
    tensors = moments_of(frames_of([[0, 1], [2, 1]], [[1, 1], [1, 1]])).to_tensors()
    del tensors[name]
    if value is not None:
        tensors[name] = value

    with pytest.raises(ValueError, match=said):
        Moments.from_tensors(tensors)
