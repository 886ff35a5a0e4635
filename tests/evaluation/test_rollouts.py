"""Closed-loop episodes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from zk0.data.sim.tasks import find_task
from zk0.evaluation.rollouts import Rollout, roll_out, write_video
from zk0.policy.checkpoint import LoadedPolicy

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


def test_looking_more_often_is_another_behaviour(loaded: LoadedPolicy) -> None:
    often, seldom = run(loaded, actions_per_look=1), run(loaded, actions_per_look=6)

    assert np.array_equal(often[0].actions[0], seldom[0].actions[0])
    assert not np.allclose(often[0].actions[1:], seldom[0].actions[1:])


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
