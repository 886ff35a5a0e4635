"""A v2.1 dataset becomes a v3 one in a new folder, by LeRobot's converter, and is compared with its source."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import config
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames
from so100_recordings import SENTENCES, as_old_lerobot, files_of, motor_steps, next_states, write_v21

from zk0.data import convert
from zk0.data.convert import NOTE, convert_dataset
from zk0.data.dataset import DatasetFolder
from zk0.errors import DataError

TOP, WRIST = "observation.images.top", "observation.images.wrist"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = [as_old_lerobot(motor_steps(frames, frames)) for frames in (14, 11, 17)]


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes in v2.1. Copy it before changing it."""
    return write_v21(tmp_path_factory.mktemp("old") / "cups", EPISODES)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, v21: Path) -> Path:
    folder = tmp_path_factory.mktemp("new") / "cups-v3"
    convert_dataset(v21, folder)
    return folder


@pytest.fixture
def old(v21: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(v21, tmp_path / "cups"))


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(DataError) as refused:
        convert_dataset(source, target)
    assert not [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}")]
    return str(refused.value)


def test_numbers_and_instructions_are_those_of_the_source(converted: Path) -> None:
    dataset = DatasetFolder(converted, "cups")
    rows = dataset.rows

    assert rows.states.tobytes() == np.concatenate(EPISODES).tobytes()
    assert rows.actions.tobytes() == np.concatenate([next_states(states) for states in EPISODES]).tobytes()
    assert rows.bounds == {0: (0, 14), 1: (14, 25), 2: (25, 42)}
    said = [dataset.task_names[int(rows.tasks[start])] for start, _ in rows.bounds.values()]
    assert said == [SENTENCES[0], SENTENCES[1], SENTENCES[0]]


@pytest.mark.parametrize("camera", [TOP, WRIST])
def test_every_picture_is_that_of_the_source(v21: Path, converted: Path, camera: str) -> None:
    dataset = DatasetFolder(converted, "cups")

    for episode, states in enumerate(EPISODES):
        times = [row / 30 for row in range(len(states))]
        video = v21 / "videos" / "chunk-000" / camera / f"episode_{episode:06d}.mp4"
        before = decode_video_frames(video, times, 1e-2, "pyav", return_uint8=True)
        assert torch.equal(dataset.decode(episode, camera, times), before)


def test_lerobot_reads_what_came_of_it(converted: Path) -> None:
    dataset = LeRobotDataset("owner/cups", root=converted, video_backend="pyav")

    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, 42, 30)
    item = dataset[20]
    assert item["task"] == SENTENCES[1] and item[TOP].shape == (3, 32, 32)
    assert np.allclose(item["observation.state"], EPISODES[1][6])


def test_the_source_is_only_read(v21: Path, tmp_path: Path) -> None:
    before = files_of(v21)

    convert_dataset(v21, tmp_path / "new")

    assert files_of(v21) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
    assert not any(path.is_symlink() for path in (tmp_path / "new").rglob("*"))


def test_nothing_is_left_in_the_users_cache(v21: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")

    convert_dataset(v21, tmp_path / "new")

    assert not (tmp_path / "cache").exists()
    assert tmp_path / "cache" == config.HF_DATASETS_CACHE


def test_a_second_time_nothing_is_done(v21: Path, tmp_path: Path) -> None:
    first = convert_dataset(v21, tmp_path / "new")
    before = files_of(tmp_path / "new")

    second = convert_dataset(v21, tmp_path / "new")

    assert (first.fresh, second.fresh) == (True, False)
    assert (second.episodes, second.frames) == (first.episodes, first.frames) == (3, 42)
    assert files_of(tmp_path / "new") == before


def test_what_is_there_is_never_overwritten(v21: Path, old: Path, converted: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    shutil.copytree(converted, tmp_path / "new")
    (old / "meta" / "episodes.jsonl").write_text((old / "meta" / "episodes.jsonl").read_text() + "\n")

    assert (
        refusal(v21, mine)
        == f"{mine} exists and is no conversion of {v21}; nothing is overwritten, choose a new folder"
    )
    assert "is no conversion of" in refusal(old, tmp_path / "new")  # recorded on since
    assert (mine / "notes.txt").read_text() == "keep me"


def test_what_a_killed_conversion_left_is_removed(v21: Path, tmp_path: Path) -> None:
    left = tmp_path / ".new.converting"
    (left / "cups_v30" / "data").mkdir(parents=True)
    (left / "half.mp4").write_bytes(b"half")

    assert convert_dataset(v21, tmp_path / "new").fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_two_at_a_time_do_not_disturb_each_other(v21: Path, tmp_path: Path) -> None:
    work = tmp_path / ".new.converting"
    work.mkdir()
    (work / "begun").write_text("by the other")
    handle = os.open(work, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match=r"another conversion into .* is running"):
            convert_dataset(v21, tmp_path / "new")
    finally:
        os.close(handle)

    assert (work / "begun").exists()


def test_a_target_inside_the_source(old: Path) -> None:
    with pytest.raises(DataError, match=r"is inside .*, which is not written to"):
        convert_dataset(old, old / "v3")


def test_a_disk_without_room(v21: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_SPARE_BYTES", 10**18)

    assert "make room, or choose a target on another disk" in refusal(v21, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "lost",
    [
        "meta/episodes_stats.jsonl",
        "data/chunk-000/episode_000001.parquet",
        f"videos/chunk-000/{WRIST}/episode_000002.mp4",
    ],
)
def test_files_that_are_missing(old: Path, tmp_path: Path, lost: str) -> None:
    (old / lost).unlink()

    message = refusal(old, tmp_path / "new")

    assert f"{old} is not a whole v2.1 dataset: {lost} not found, though meta/info.json counts 3 episodes" in message


def test_a_video_that_was_cut_off(old: Path, tmp_path: Path) -> None:
    video = old / "videos" / "chunk-000" / TOP / "episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:200])

    message = refusal(old, tmp_path / "new")

    assert message.startswith(f"{video}: cannot be read as a video, from episode 1, frame 0 on: ")
    assert not (tmp_path / "new").exists()


def test_a_conversion_that_says_something_else_is_not_kept(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the converter had joined the videos in another order."""
    from lerobot.scripts import convert_dataset_v21_to_v30 as lerobot

    joined = lerobot.concatenate_video_files
    monkeypatch.setattr(lerobot, "concatenate_video_files", lambda paths, to: joined(paths[::-1], to))

    message = refusal(old, tmp_path / "new")

    assert "of episode 0" in message
    assert not (tmp_path / "new").exists()


def test_videos_as_lerobots_recorder_wrote_them(tmp_path: Path) -> None:
    """AV1, each episode of another length: the joined file's offsets must fall on its frames."""
    states = [as_old_lerobot(motor_steps(frames, frames)) for frames in (23, 8, 31, 12)]
    source = write_v21(tmp_path / "cups", states, codec="libsvtav1")

    done = convert_dataset(source, tmp_path / "new")

    dataset = DatasetFolder(done.folder, "cups")
    for episode, (start, stop) in dataset.rows.bounds.items():
        assert len(dataset.decode(episode, TOP, dataset.rows.timestamps[start:stop].tolist())) == stop - start


def test_counts_that_a_recorder_left_out_do_not_matter(old: Path, tmp_path: Path) -> None:
    info = json.loads((old / "meta" / "info.json").read_text())
    del info["total_chunks"], info["total_videos"]
    (old / "meta" / "info.json").write_text(json.dumps(info))

    assert convert_dataset(old, tmp_path / "new").frames == 42


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v3.0", "has LeRobot format v3.0 already; name it as local:"),
        ("v2.0", "has LeRobot format v2.0; v3.0 is needed. LeRobot 0.3.3 converts it to v2.1"),
        ("v1.6", "has LeRobot format v1.6; v3.0 is needed. Record it anew"),
        ("v9.0", "unknown LeRobot format v9.0"),
    ],
)
def test_other_formats(old: Path, tmp_path: Path, version: str, said: str) -> None:
    info = json.loads((old / "meta" / "info.json").read_text())
    places = {"data_path": V3_DATA, "video_path": V3_VIDEO} if version == "v3.0" else {}
    (old / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": version} | places))

    assert said in refusal(old, tmp_path / "new")


def test_what_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert "is no LeRobot dataset" in refusal(tmp_path / "empty", tmp_path / "new")
    (tmp_path / "empty" / "meta_data").mkdir()
    (tmp_path / "empty" / "meta_data" / "info.json").write_text("{}")
    assert "has a LeRobot format of 1.x; v3.0 is needed. Record it anew" in refusal(
        tmp_path / "empty", tmp_path / "new"
    )


def test_an_empty_one(tmp_path: Path) -> None:
    source = write_v21(tmp_path / "cups", [])

    assert refusal(source, tmp_path / "new") == f"{source} is empty: it has no episodes"


def test_where_it_came_from_is_noted(v21: Path, converted: Path) -> None:
    note = json.loads((converted / NOTE).read_text())

    assert note["converted_from"] == "v2.1" and note["source"] == "cups"
    assert str(v21.parent) not in (converted / NOTE).read_text()
