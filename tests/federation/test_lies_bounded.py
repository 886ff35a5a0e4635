"""What a site may say without contradicting itself, at its extremes: it moves what is made of all sites by little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lies import digits, fields, moments, several, tensors, values
from lying_federation import LIAR, Lie, LyingFederation, Tell, away

from zk0.data.units import READ_HIGH, READ_LOW, longest_change, longest_step
from zk0.federation import protocol
from zk0.federation.aggregation import longest_update
from zk0.federation.agreement import COUNT_TIMES, DEVIATIONS_TIMES, POSITIONS_BEYOND, STEPS_TIMES
from zk0.federation.statistics import Moments
from zk0.policy.trainable import Tensors, update_norm

JOINT = st.tuples(*[st.floats(0.0, 1.0)] * 6)
SHARES = st.one_of(st.sampled_from([(0.0,) * 6, (1.0,) * 6, (0.0, 1.0) * 3, (0.5,) * 6]), JOINT)


def consistent(low: Any, high: Any, mean: Any, spread: Any, step: Any, change: Any) -> Tell:
    """Statistics that an arm might have, as shares of what its build allows; each of six."""
    span = READ_HIGH - READ_LOW
    bottom = READ_LOW + span * np.minimum(low, high)
    top = READ_LOW + span * np.maximum(low, high)
    width = top - bottom
    middle = np.clip(bottom + width * np.array(mean), bottom, top)  # a rounding beyond it would contradict them

    def as_tensor(array: np.ndarray) -> Any:
        return lambda _: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))

    def squares(_: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy((middle - bottom) * (top - middle) * np.array(spread))

    told = moments(
        low=as_tensor(bottom),
        high=as_tensor(top),
        mean_state=as_tensor(middle),
        mean_action=as_tensor(middle),
        step=as_tensor(width * np.array(step)),
        change=as_tensor(width * np.array(change)),
        m2_state=squares,
        m2_action=squares,
    )
    # Each square counts once a frame.
    return several(told, tensors(protocol.MOMENTS, _times_count))


def _times_count(found: Tensors) -> None:
    for name in ("m2_state", "m2_action"):
        found[name] = found[name] * found["count"]


def merged(told: dict[str, Any]) -> Moments:
    return Moments(**{name: np.array(value) for name, value in told.items()})


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(shares=st.tuples(*[SHARES] * 6))
def test_statistics_that_an_arm_might_have(lying: LyingFederation, shares: tuple[Any, ...]) -> None:
    others = merged(lying.exchange(Lie(protocol.STATISTICS, away, None, 0), protocol.STATISTICS).told)

    found = lying.exchange(Lie(protocol.STATISTICS, consistent(*shares), None, 0), protocol.STATISTICS)

    assert found.reasons() == {}
    honest = lying.exchange(None, protocol.STATISTICS)  # there, too, a site may differ from all others
    assert {event["site"] for event in found.events} <= {LIAR, *(event["site"] for event in honest.events)}
    now, fps = merged(found.told), lying.params.data.fps
    assert (now.low >= np.maximum(others.low - POSITIONS_BEYOND, READ_LOW) - 1e-6).all()
    assert (now.high <= np.minimum(others.high + POSITIONS_BEYOND, READ_HIGH) + 1e-6).all()
    for name, build in (("step", longest_step(fps)), ("change", longest_change(fps))):
        most = STEPS_TIMES * np.maximum(getattr(others, name), getattr(others, name).max())
        assert (getattr(now, name) <= np.minimum(build, most) + 1e-6).all()
    # Of four the liar has a quarter: three are as they are, and the fourth is at most so far and so wide.
    most = DEVIATIONS_TIMES * np.sqrt(others.m2_state / others.count).max() + POSITIONS_BEYOND
    assert (np.sqrt(now.m2_state / now.count) <= most + np.sqrt(others.m2_state / others.count)).all()
    assert now.count <= others.count * (1 + COUNT_TIMES)


@pytest.mark.parametrize("loss", [0.0, 1e-300, 1e6])
def test_a_loss_has_a_bounded_say(lying: LyingFederation, loss: float) -> None:
    """No round's loss is far from that of honest sites, nor the chosen one from the best."""
    honest = lying.run(None, rounds=3)

    found = lying.run(Lie(protocol.EVALUATE, values(held_out_loss=loss), None), rounds=3)

    assert found.digests == honest.digests and found.reasons() == {}
    losses = [row["held_out_loss"] for row in honest.rows[1:]]
    assert losses[found.report["best_round"] - 1] <= 1.5 * min(losses)
    for mine, row in zip(found.rows[1:], honest.rows[1:], strict=True):
        told = [site["held_out_loss"] for name, site in row["sites"].items() if name != LIAR]
        assert 0.5 * min(told) <= mine["held_out_loss"] <= 2 * max(told)


@pytest.mark.parametrize("frames", [10**9, 1])
def test_frames_in_a_manifest_have_a_bounded_say(lying: LyingFederation, frames: int) -> None:
    """Statistics of as many frames come after; both together are as consistent as a lie can be."""

    def manifest(found: dict[str, Any]) -> None:
        found["values"]["manifest"] |= {"train_frames": frames, "held_out_frames": frames}

    def count(found: Tensors) -> None:
        times = frames / float(found["count"])
        found |= {"count": found["count"] * 0 + frames, **{n: found[n] * times for n in ("m2_state", "m2_action")}}

    lie = Lie(protocol.SUMMARY, fields(manifest), None, 0, also={protocol.STATISTICS: tensors(protocol.MOMENTS, count)})
    honest = lying.honest

    found = lying.run(lie)

    assert found.reasons() == {}
    others = [site["held_out_loss"] for name, site in honest.rows[0]["sites"].items() if name != LIAR]
    assert 0.5 * min(others) <= found.rows[0]["held_out_loss"] <= 2 * max(others)
    for feature, told in found.report["stats"].items():
        for name, value in told.items():
            np.testing.assert_allclose(value, honest.report["stats"][feature][name], rtol=1.0, atol=20.0)


@pytest.mark.parametrize("private", [False, True])
def test_the_longest_update_spoils_no_other_sites_reply(lying: LyingFederation, private: bool) -> None:
    """What is made of it is of use to nobody, but others are not blamed for it; a robust strategy leaves it out."""

    def longest(found: Tensors) -> None:
        values = sum(tensor.numel() for tensor in found.values())
        factor = 0.99 * longest_update(lying.params, values, private) / update_norm(found)
        for tensor in found.values():
            tensor.mul_(-factor)

    told = tensors(protocol.DELTA, longest)
    lie = Lie(protocol.TRAIN, several(told, digits("epsilon", "1.0")) if private else told, None)

    found = lying.run(lie, rounds=3)

    assert found.reasons() == {}
    assert all(len(row["sites"]) == 4 and np.isfinite(row["held_out_loss"]) for row in found.rows)
    assert found.report["best_round"] in (1, 2, 3)


def test_fewer_examples_weigh_less(lying: LyingFederation) -> None:
    """One of two; more than were asked for are refused."""
    found = lying.run(Lie(protocol.TRAIN, values(examples=1), None))

    assert found.reasons() == {} and found.digests[1] not in (lying.honest.digests[1], lying.honest.digests[0])
