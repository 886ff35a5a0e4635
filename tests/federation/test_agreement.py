"""How far one site's statistics and losses count, by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from zk0.data.units import READ_HIGH, READ_LOW, longest_change, longest_step
from zk0.federation.agreement import (
    CHANGE_TIMES,
    COUNT_TIMES,
    PART_TIMES,
    POSITIONS_BEYOND,
    STEPS_TIMES,
    agree,
    agreed_loss,
)
from zk0.federation.answers import sound_loss
from zk0.federation.statistics import Moments, merge_all
from zk0.params import PrivacyParams
from zk0.records.run import Round, SiteRound
from zk0.so100 import JOINTS

FPS = 10
SIX = np.ones(6)


def site(middle: float = 0.0, **changes: Any) -> Moments:
    """A hundred frames within 20 of a middle, with a deviation of 10, steps of 6 and changes of 8."""
    values: dict[str, Any] = {
        "count": np.array(100.0), "mean_state": middle * SIX, "m2_state": 1e4 * SIX, "mean_action": middle * SIX,
        "m2_action": 1e4 * SIX, "low": (middle - 20) * SIX, "high": (middle + 20) * SIX, "step": 6 * SIX,
        "change": 8 * SIX,
    }  # fmt: skip
    return Moments(**{**values, **changes})


def extreme() -> Moments:
    """All that an arm can read, within its own bounds."""
    span = READ_HIGH - READ_LOW
    middle, m2 = (READ_HIGH + READ_LOW) / 2, 100 * (span / 2) ** 2
    return Moments(np.array(100.0), middle, m2, middle, m2, READ_LOW, READ_HIGH, span, span)


HONEST = {"a": site(-10), "b": site(0), "c": site(10), "d": site(20)}


def test_sites_that_are_alike_are_merged_bit_for_bit() -> None:
    agreed = agree(HONEST, FPS)

    assert agreed.bounded == {}
    expected = merge_all(list(HONEST.values()))
    assert all(np.array_equal(getattr(agreed.moments, f.name), getattr(expected, f.name)) for f in fields(expected))


def test_one_liar_among_five_moves_limits_by_no_more_than_the_margins() -> None:
    liar = extreme()
    liar.check(100)

    agreed = agree({**HONEST, "liar": liar}, FPS)

    honest, found = merge_all(list(HONEST.values())), agreed.moments
    assert list(agreed.bounded) == ["liar"] and "step of wrist_roll" in agreed.bounded["liar"]
    assert (found.low >= honest.low - POSITIONS_BEYOND).all() and (found.high <= honest.high + POSITIONS_BEYOND).all()
    assert (found.step <= STEPS_TIMES * honest.step).all() and (found.change <= STEPS_TIMES * honest.change).all()
    spread = [m.normalisation()["action"]["std"] for m in (honest, found)]
    assert (spread[1] < 1.7 * spread[0]).all()


def test_count_is_bounded_and_deviation_kept() -> None:
    agreed = agree({**HONEST, "big": site(0, count=np.array(1e6), m2_state=1e8 * SIX, m2_action=1e8 * SIX)}, FPS)

    assert agreed.moments.count == 400 + COUNT_TIMES * 100
    assert agreed.bounded == {"big": "count 1e+06 as 200"}
    np.testing.assert_allclose(agreed.moments.m2_action[0], 400 * 225 + 200 * 100 + 400 * 200 / 600 * 25)


def test_joint_that_others_hardly_use_may_move_as_their_other_joints_do() -> None:
    still = {name: replace(one, step=np.array([6, 6, 6, 6, 0.1, 6.0])) for name, one in HONEST.items()}

    assert agree({**still, "e": site()}, FPS).bounded == {}


def test_below_four_sites_only_the_build_bounds() -> None:
    agreed = agree({"a": site(), "b": site(), "liar": extreme()}, FPS)

    assert agreed.moments.high.tolist() == READ_HIGH.tolist()
    assert agreed.moments.step.tolist() == longest_step(FPS).tolist() == [54.0] * 5 + [100.0]
    assert agreed.moments.change.tolist() == longest_change(FPS).tolist() == [27.0] * 5 + [100.0]
    assert list(agreed.bounded) == ["liar"]


def at(joint: str, value: float) -> np.ndarray:
    values = site(10).low.copy()
    values[JOINTS.index(joint)] = value
    return values


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": -1e9 * SIX, "high": 1e9 * SIX}, "'low' of shoulder_pan are -1e.09; -155 to 155 was expected, of what"),
        ({"high": at("wrist_flex", -30.0)}, "'high' of wrist_flex are -30; -10 to 140 was expected"),
        ({"mean_state": 31 * SIX}, "'mean_state' of shoulder_pan are 31; -10 to 30 was expected, from 'low' to 'high'"),
        ({"m2_state": 1e20 * SIX}, "'m2_state' of shoulder_pan are 1e.20; 0 to 40000 was expected"),
        ({"m2_action": -1e-7 * SIX}, "'m2_action' of shoulder_pan are -1e-07; 0 to"),
        ({"step": 41 * SIX}, "'step' of shoulder_pan are 41; 0 to 40 was expected, of at most 'high' less 'low'"),
        ({"change": -SIX}, "'change' of shoulder_pan are -1; 0 to 40"),
        ({"count": np.array(1e9)}, "are of 1e.09 frames, but the site's manifest has 100"),
        ({"low": np.zeros(3)}, r"'low' have shape \(3,\), expected \(6,\)"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(site(10), **changes).check(100)


# -- losses --------------------------------------------------------------------------------------

FRAMES = dict.fromkeys("abcde", 10)


def row(number: int, **losses: float) -> Round:
    sites = {name: SiteRound(held_out_loss=loss) for name, loss in losses.items()}
    return Round(round=number, held_out_loss=1.0, sites=sites)


FIRST = row(1, a=1.0, b=2.0, c=1.0, d=1.0, e=1.0)


def test_honest_losses_are_their_mean() -> None:
    told = {"a": 0.9, "b": 1.7, "c": 0.8, "d": 1.0, "e": 0.7}

    found = agreed_loss(told, FRAMES, [row(0, **told), FIRST])

    total = 0.0
    for loss in told.values():
        total += loss * 10
    assert (found.mean, found.bounded) == (total / 50, {})


@pytest.mark.parametrize("lie", [0.0, 1e6])
def test_one_loss_moves_the_mean_by_half_of_its_part(lie: float) -> None:
    told = {"a": 0.9, "b": 1.8, "c": 0.9, "d": 0.9, "e": lie}

    found = agreed_loss(told, FRAMES, [FIRST])

    counted = 0.9 * CHANGE_TIMES if lie else 0.9 / CHANGE_TIMES
    assert found.mean == pytest.approx((4.5 + counted) / 5)
    assert list(found.bounded) == ["e"]


def test_silence_steers_nothing() -> None:
    """The site with the largest loss is away, and the mean is as if it had changed as the others did."""
    told = {"a": 0.9, "c": 0.9, "d": 0.9, "e": 0.9}

    assert agreed_loss(told, FRAMES, [FIRST]).mean == pytest.approx(0.9 * 6 / 5)
    late = agreed_loss({**told, "late": 0.0}, {**FRAMES, "late": 10}, [FIRST])
    assert late.mean == pytest.approx(0.9 * 6 / 5) and late.bounded == {"late": "it was away in round 1"}


def test_no_site_is_more_than_a_bounded_part_of_the_mean() -> None:
    many = agreed_loss(dict.fromkeys("abcde", 1.0), {**FRAMES, "e": 10**9}, [])
    large = agreed_loss({**dict.fromkeys("abcd", 1.0), "e": 1e6}, FRAMES, [])

    assert many.bounded == {"e": "1000000000 held-out frames as 20"}
    part = PART_TIMES * 10 / 1e6
    assert large.mean == pytest.approx((40 + part * 1e6) / (40 + part))


def test_below_four_sites_losses_count_as_told() -> None:
    assert agreed_loss({"a": 0.0, "b": 2.0}, {"a": 10, "b": 30}, [row(1, a=1.0, b=1.0)]).mean == 1.5


def test_a_loss_is_no_less_than_0_unless_noise_is_on_it() -> None:
    noisy = PrivacyParams(mode="site", report_noise_multiplier=10.0, loss_bound=2.0)

    assert [sound_loss(loss, PrivacyParams()) for loss in (-1e6, 0.5, 1e308)] == [0.0, 0.5, 1e6]
    assert [sound_loss(loss, noisy) for loss in (-1e6, -5.0, 1e308)] == [-80.0, -5.0, 82.0]
