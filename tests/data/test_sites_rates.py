"""Sites that record at another rate: one frame in so many by params, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from real_sites import TOP, Prepare, all_frames, episodes, refusal, source
from so100_recordings import (
    next_states,
)

from zk0.data.dataset import DatasetFolder
from zk0.data.manifest import read_manifests


def test_a_site_that_records_faster_is_refused_until_params_say_so(run: Prepare, library: Path) -> None:
    message = refusal(run, {"here": "degrees", "there": "fast"})

    assert message == (
        f"{library / 'fast'} has 30 frames per second, the federation 10 (data.fps): to take one frame in 3 of it, say "
        "data.every: {there: 3}"
    )


def test_one_frame_in_three_is_what_a_slower_recorder_would_have_written(tmp_path: Path, run: Prepare) -> None:
    run({"here": "degrees", "there": "fast"}, every={"there": 3})

    _, there = read_manifests(tmp_path)[0]
    assert (there.fps, there.every) == (10, 3)
    frames = all_frames(there, tmp_path)
    taken = [states[::3] for states in episodes(1, "degrees")]
    commands = [next_states(states)[::3] for states in episodes(1, "degrees")]
    assert frames.states.tolist() == np.concatenate(taken).tolist()
    assert frames.actions.tolist() == np.concatenate(commands).tolist()
    assert len(frames) == there.train_frames + there.held_out_frames == 6 + 5
    assert frames.last.tolist() == [5] * 6 + [10] * 5
    own = DatasetFolder(Path(there.root), "x")
    for row, (episode, frame) in {1: (0, 3), 5: (0, 15), 7: (1, 3)}.items():
        picture = own.decode(episode, TOP, [frame / 30])
        assert torch.equal(frames.images.read(TOP, np.array([row])), picture.to(torch.float32) / 255)
    assert source(tmp_path, "there")["fps"] == {"recorded": 30.0, "every": 3, "taken": 10.0}


def test_another_stride_is_other_data(tmp_path: Path, run: Prepare) -> None:
    run({"there": "fast"}, every={"there": 3})
    slow = read_manifests(tmp_path)[0][0]
    slow_clips = all_frames(slow, tmp_path).clips()
    run({"there": "fast"}, fps=30)
    fast = read_manifests(tmp_path)[0][0]

    assert slow.digest != fast.digest and slow.episode_digests == fast.episode_digests
    assert slow_clips[0].digests != all_frames(fast, tmp_path).clips()[0].digests


@pytest.mark.parametrize(
    ("folder", "every", "said"),
    [
        ("fast", 2, "to take one frame in 3 of it, say data.every: {there: 3}, not 2"),
        ("degrees", 3, "take there out of data.every, which says 3 for it"),
        ("odd", 1, "frames between frames cannot be made up; choose a data.fps of which every site's rate is a whole"),
    ],
)
def test_other_rates_are_never_mixed(run: Prepare, folder: str, every: int, said: str) -> None:
    assert said in refusal(run, {"there": folder}, every={"there": every})


def test_a_rate_that_the_timestamps_belie(run: Prepare, library: Path, tmp_path: Path) -> None:
    import json
    import shutil

    liar = Path(shutil.copytree(library / "fast", tmp_path / "liar"))
    info = json.loads((liar / "meta" / "info.json").read_text())
    (liar / "meta" / "info.json").write_text(json.dumps(info | {"fps": 10}))

    assert "frames of episode 0 are 0.0333 s apart, and 10 frames per second would be 0.1000" in refusal(
        run, {"there": str(liar)}
    )
