"""An episode's pictures are known by their packets: they outlive growth, and not a new recording."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.clips import clip_digest
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


def record(folder: Path, episodes: int, codec: dict[str, object]) -> list[str]:
    """A dataset of noise that moves, by LeRobot's own writer; the first episodes are always the same."""
    image = {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (6,), "names": list("abcdef")}
    features = {TOP: image, "action": vector, "observation.state": dict(vector)}
    dataset = LeRobotDataset.create(
        NAME, 10, features, root=folder, video_backend="pyav", rgb_encoder=RGBEncoderConfig(**codec)
    )
    rng = np.random.default_rng(1)
    for episode in range(episodes):
        picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        for step in range(7 + episode):
            zeros = np.zeros(6, dtype=np.float32)
            dataset.add_frame(
                {TOP: np.roll(picture, step, 0), "action": zeros, "observation.state": zeros, "task": "move"}
            )
        dataset.save_episode()
    dataset.finalize()
    found = DatasetFolder(folder, NAME)
    assert len({span.path for span in found.spans[TOP].values()}) == 1  # LeRobot put them into one file
    return [clip_digest(found, episode, TOP) for episode in found.rows.bounds]


@pytest.mark.parametrize("codec", [{"vcodec": "h264", "g": 2, "crf": 18}, {"vcodec": "libsvtav1"}], ids=["h264", "av1"])
def test_clips_outlive_a_growing_dataset(tmp_path: Path, codec: dict[str, object]) -> None:
    before = record(tmp_path / "small", 2, codec)
    after = record(tmp_path / "grown", 4, codec)

    assert after[:2] == before
    assert len(set(after)) == 4


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
