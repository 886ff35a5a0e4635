"""An episode's pictures are known by their packets: they outlive growth, and not a new recording."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.clips import clip_digest, identity
from zk0.data.dataset import DatasetFolder
from zk0.errors import DataError

NAME = "zk0/cubes"
TOP, WRIST = "observation.images.top", "observation.images.wrist"


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the recording, to be spoilt."""
    return Path(shutil.copytree(recorded, tmp_path / "cubes"))


def digests(root: Path, memo: Path | None = None) -> list[str]:
    dataset = DatasetFolder(root, NAME)
    return [clip_digest(dataset, episode, camera, memo) for camera in (TOP, WRIST) for episode in dataset.rows.bounds]


def test_every_clip_has_its_own_digest_wherever_it_lies(recorded: Path, folder: Path) -> None:
    assert len(set(digests(recorded))) == 16
    assert digests(folder) == digests(recorded)


CODECS: dict[str, dict[str, object]] = {
    "h264": {"vcodec": "h264", "g": 2, "crf": 18, "extra_options": {"mbtree": 0}},
    "hevc": {"vcodec": "hevc", "g": 2, "extra_options": {"x265-params": "log-level=none"}},
    "av1": {"vcodec": "libsvtav1"},
}


def add_episodes(dataset: LeRobotDataset, episodes: range) -> None:
    """Noise that moves: an episode's number decides its pictures and its length."""
    for episode in episodes:
        picture = np.random.default_rng(episode).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        vector = np.full(6, episode, dtype=np.float32)
        for step in range(7 + episode):
            frame = {TOP: np.roll(picture, step, 0), "action": vector, "observation.state": vector, "task": "move"}
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def identities(folder: Path) -> list[str]:
    dataset = DatasetFolder(folder, NAME)
    return [identity(dataset, episode, [TOP]) for episode in dataset.rows.bounds]


@pytest.mark.parametrize("codec", list(CODECS))
def test_episodes_are_the_same_while_a_dataset_grows(tmp_path: Path, codec: str) -> None:
    """By LeRobot's own recorder, which joins videos, and by its resuming; from one episode on."""
    image = {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (6,), "names": list("abcdef")}
    features = {TOP: image, "action": vector, "observation.state": dict(vector)}
    settings: dict[str, Any] = {"video_backend": "pyav", "rgb_encoder": RGBEncoderConfig(**CODECS[codec])}  # type: ignore[arg-type]
    found: list[list[str]] = []

    for day, episodes in enumerate((range(1), range(1, 3), range(3, 4))):
        if day == 0:
            dataset = LeRobotDataset.create(NAME, 10, features, root=tmp_path / "own", **settings)
        else:
            dataset = LeRobotDataset.resume(NAME, root=tmp_path / "own", **settings)
        add_episodes(dataset, episodes)
        found.append(identities(tmp_path / "own"))
    add_episodes(LeRobotDataset.create(NAME, 10, features, root=tmp_path / "once", **settings), range(4))

    assert [len(day) for day in found] == [1, 3, 4] and len(set(found[2])) == 4
    assert found[2][:1] == found[0] and found[2][:3] == found[1]
    once = DatasetFolder(tmp_path / "once", NAME)
    assert len({span.path for span in once.known.spans[TOP].values()}) == 1  # LeRobot put them into one file
    assert identities(tmp_path / "once") == found[2]


def test_what_is_known_of_a_file_is_kept_until_it_changes(folder: Path, tmp_path: Path) -> None:
    """Between the calls the videos are overwritten with zeros; a changed time or size shows it."""
    memo = tmp_path / "memo"
    before = digests(folder, memo)
    for video in folder.rglob("*.mp4"):
        stat = video.stat()
        with video.open("r+b") as stream:
            stream.write(bytes(stat.st_size))
        os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert len(list(memo.iterdir())) == 2
    assert digests(folder, memo) == before
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DataError, match=r"\.mp4: video is unreadable"):
        digests(folder, memo)


def test_video_that_was_cut_off_has_no_pictures_of_the_last_episode(folder: Path) -> None:
    """Its table of contents is at the front, and counts packets that are no longer there."""
    (video,) = (folder / "videos" / TOP).rglob("*.mp4")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    dataset = DatasetFolder(folder, NAME)

    assert clip_digest(dataset, 0, TOP) == clip_digest(DatasetFolder(folder, NAME), 0, TOP)
    with pytest.raises(DataError, match=rf"{video}: .*(unreadable|no pictures of episode 7; the file was cut off)"):
        clip_digest(dataset, 7, TOP)


def test_video_that_is_missing(folder: Path) -> None:
    (video,) = (folder / "videos" / WRIST).rglob("*.mp4")
    video.unlink()

    with pytest.raises(DataError, match=f"{video}: video of episode 3 is unreadable"):
        clip_digest(DatasetFolder(folder, NAME), 3, WRIST)


def test_unknown_episode_and_camera(recorded: Path) -> None:
    dataset = DatasetFolder(recorded, NAME)

    with pytest.raises(DataError, match=f"meta/episodes knows no video of {TOP} for episode 99"):
        clip_digest(dataset, 99, TOP)
    with pytest.raises(DataError, match=r"knows no video of observation\.images\.side for episode 0"):
        clip_digest(dataset, 0, "observation.images.side")


def test_identity_is_of_what_is_shown_not_of_the_camera_s_name(recorded: Path, folder: Path) -> None:
    (top,), (wrist,) = ((folder / "videos" / camera).rglob("*.mp4") for camera in (TOP, WRIST))
    shutil.copy(wrist, top)
    dataset = DatasetFolder(folder, NAME)

    assert clip_digest(dataset, 0, TOP) == clip_digest(DatasetFolder(recorded, NAME), 0, WRIST)
    assert torch.equal(dataset.decode(0, TOP, [0.1]), dataset.decode(0, WRIST, [0.1]))
