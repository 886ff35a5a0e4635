"""Closed-loop episodes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from zk0.data.sim.rooms import Room
from zk0.data.sim.tasks import find_task
from zk0.evaluation.driving import cut
from zk0.evaluation.limits import Limits
from zk0.evaluation.rollouts import Driven, Rollout, drive, roll_out, write_video
from zk0.params import EvaluationParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.so100 import JOINTS

SEEDS = (100_000, 100_001, 100_002)
TASK = find_task("press-magenta-disc")


def run(loaded: LoadedPolicy, **settings: int) -> list[Rollout]:
    return roll_out(loaded, TASK, SEEDS, **({"max_steps": 6, "actions_per_look": 4} | settings))


def test_results_come_in_the_seeds_order_within_the_limit(loaded: LoadedPolicy) -> None:
    results = run(loaded)

    assert tuple(r.seed for r in results) == SEEDS
    for result in results:
        assert result.steps == 6 and not result.success
        assert result.states.shape == (7, 6) and result.actions.shape == (6, 6)
        assert result.frames is None


def test_same_policy_same_rollouts(loaded: LoadedPolicy) -> None:
    for one, again in zip(run(loaded), run(loaded), strict=True):
        assert one.states.tobytes() == again.states.tobytes()
        assert one.actions.tobytes() == again.actions.tobytes()


@pytest.mark.parametrize("side_by_side", [1, 2])
def test_rollouts_do_not_depend_on_their_neighbours(loaded: LoadedPolicy, side_by_side: int) -> None:
    """Up to rounding: a batch of another size may add in another order."""
    for one, other in zip(run(loaded), run(loaded, side_by_side=side_by_side), strict=True):
        np.testing.assert_allclose(one.states, other.states, atol=1e-2)
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-2)
        assert (one.seed, one.success, one.steps) == (other.seed, other.success, other.steps)


def test_filming_changes_nothing_and_only_the_first_are_filmed(loaded: LoadedPolicy) -> None:
    plain, filmed = run(loaded), run(loaded, filmed=1)

    assert filmed[0].frames is not None and filmed[0].frames.shape == (7, 192, 192, 3)
    assert [r.frames is None for r in filmed] == [False, True, True]
    assert filmed[0].states.tobytes() == plain[0].states.tobytes()


def test_rooms_are_dealt_to_the_scenes_and_do_not_meet(loaded: LoadedPolicy) -> None:
    rooms = [Room.of(1), Room.of(2, {"joints": 1.0})]

    together = run(loaded, rooms=rooms)

    for number, rollout in enumerate(together):
        (alone,) = roll_out(loaded, TASK, [rollout.seed], rooms=[rooms[number % 2]], max_steps=6, actions_per_look=4)
        np.testing.assert_allclose(rollout.states, alone.states, atol=1e-3)
    assert not np.allclose(together[0].actions[0], run(loaded)[0].actions[0])


def test_looking_more_often_is_another_behaviour(loaded: LoadedPolicy) -> None:
    often, seldom = run(loaded, actions_per_look=1), run(loaded, actions_per_look=6)

    assert np.array_equal(often[0].actions[0], seldom[0].actions[0])
    assert not np.allclose(often[0].actions[1:], seldom[0].actions[1:])


def test_a_source_is_driven_in_its_room(loaded: LoadedPolicy) -> None:
    limits = Limits(*(np.full(6, value) for value in (-180.0, 180.0, 30.0, 30.0)))
    settings = EvaluationParams(max_steps=4)

    plain, room = (
        drive(loaded, f"sim:{TASK.name}{behind}", settings, limits, SEEDS[:1]).limited[0] for behind in ("", "@3")
    )

    assert (
        room.states.tobytes() == roll_out(loaded, TASK, SEEDS[:1], rooms=[Room.of(3)], max_steps=4)[0].states.tobytes()
    )
    assert not np.array_equal(room.actions, plain.actions)


# -- an arm's longest step ------------------------------------------------------------------------


def test_no_target_is_farther_from_where_the_arm_is_than_its_longest_step(loaded: LoadedPolicy) -> None:
    """As LeRobot's clamp has it, each joint for itself; what was asked for is kept beside."""
    longest = dict(zip(JOINTS, (2.0, 2.0, 2.0, 2.0, 1.0, 4.0), strict=True))

    limited, raw = roll_out(loaded, TASK, SEEDS, max_steps=6, longest=longest), run(loaded)

    for one, free in zip(limited, raw, strict=True):
        most = np.array(list(longest.values())) + 1e-4
        assert (np.abs(one.sent - one.states[:-1]) <= most).all()
        near = np.abs(one.actions - one.states[:-1]) <= most - 2e-4
        assert np.array_equal(one.sent[near], one.actions[near]) and not near.all() and one.cut
        assert np.array_equal(free.sent, free.actions) and not free.cut
        assert np.array_equal(one.actions[0], free.actions[0])  # the same look, the same noise


def test_a_limit_that_is_never_reached_changes_nothing(loaded: LoadedPolicy) -> None:
    wide = roll_out(loaded, TASK, SEEDS, max_steps=6, longest=dict.fromkeys(JOINTS, 500.0))

    for one, raw in zip(wide, run(loaded), strict=True):
        assert one.states.tobytes() == raw.states.tobytes() and not one.cut


def test_lerobots_warnings_are_counted_and_not_printed(loaded: LoadedPolicy, caplog: pytest.LogCaptureFixture) -> None:
    (one,) = roll_out(loaded, TASK, SEEDS[:1], max_steps=3, longest=dict.fromkeys(JOINTS, 0.1))
    assert one.cut and not caplog.records

    cut(np.full(6, 9.0), np.zeros(6), dict.fromkeys(JOINTS, 0.1))
    assert "had to be clamped" in caplog.text  # whoever drives a real arm is still told


@pytest.mark.parametrize(("step", "same"), [(500.0, True), (1.0, False)])
def test_scenes_are_driven_within_the_limit_and_without(loaded: LoadedPolicy, step: float, same: bool) -> None:
    limits = Limits(*(np.full(6, value) for value in (-100.0, 100.0, step, step)))

    driven = drive(loaded, "sim:press-magenta-disc", EvaluationParams(max_steps=6, step_factor=1.0), limits, SEEDS)

    assert [r.seed for r in driven.limited] == [r.seed for r in driven.raw] == list(SEEDS)
    assert [one is other for one, other in zip(driven.limited, driven.raw, strict=True)] == [same] * 3
    assert not any(r.cut for r in driven.raw)
    assert drive(loaded, "local:cups", EvaluationParams(), limits, SEEDS) == Driven()


# -- videos --------------------------------------------------------------------------------------


def test_video_is_small_h264_that_holds_its_last_frame(tmp_path: Path) -> None:
    """Five frames from black to bright, then eight of the last."""
    levels = [0, 50, 100, 150, 200]
    frames = np.stack([np.full((64, 48, 3), level, dtype=np.uint8) for level in levels])

    write_video(frames, tmp_path / "films" / "x.mp4", fps=10)

    with av.open(str(tmp_path / "films" / "x.mp4")) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
    means = [float(image.mean()) for image in decoded]
    assert decoded[0].shape == (64, 48, 3)
    np.testing.assert_allclose(means, levels + [200] * 8, atol=6)
    assert all(later >= earlier - 3 for earlier, later in pairwise(means))
    assert (tmp_path / "films" / "x.mp4").stat().st_size < 10_000
