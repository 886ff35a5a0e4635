"""Recordings are LeRobot datasets, as a robot owner's recorder would write them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.dataset import DatasetFolder
from zk0.data.frames import ACTION, STATE
from zk0.data.recordings import ENCODER, record_dataset, recording_seed
from zk0.data.sim.expert import record_episodes
from zk0.data.sim.tasks import SimTask
from zk0.digests import digest_folder
from zk0.so100 import FEATURE_NAMES


@pytest.fixture(scope="module")
def read(recorded: Path) -> LeRobotDataset:
    """The recording as anybody with LeRobot reads it."""
    return LeRobotDataset("zk0/cubes", root=recorded, video_backend="pyav")


def test_lerobot_reads_it(read: LeRobotDataset) -> None:
    item = read[len(read) - 1]

    assert read.num_episodes == 8
    assert item[STATE].shape == item[ACTION].shape == (6,)
    assert item["observation.images.top"].shape == item["observation.images.wrist"].shape == (3, 96, 96)
    assert item["task"].startswith("touch the ")


def test_metadata_is_that_of_an_so101(read: LeRobotDataset) -> None:
    assert read.meta.robot_type == "so101_follower"
    assert read.fps == 10
    assert tuple(read.features[STATE]["names"]) == tuple(read.features[ACTION]["names"]) == FEATURE_NAMES
    assert read.meta.video_keys == ["observation.images.top", "observation.images.wrist"]


def test_every_episode_has_its_scenes_sentence(recorded: Path) -> None:
    dataset = DatasetFolder(recorded, "zk0/cubes")
    tasks = dataset.table.groupby("episode_index")["task_index"].unique()

    assert all(len(indices) == 1 for indices in tasks)
    sentences = [dataset.task_names[int(indices[0])] for indices in tasks]
    assert Counter(sentences) == {"touch the red cube": 4, "touch the green cube": 4}


def test_same_seed_same_numbers(recorded: Path, tmp_path: Path, cube_task: SimTask, first_seed: int) -> None:
    """Even at another image size: what is seen plays no part in what is done."""
    record_dataset(
        cube_task, tmp_path / "again", repo_id="zk0/again", episodes=2, seed=first_seed, noise=0.25, image_size=32
    )
    one, again = DatasetFolder(recorded, "zk0/cubes"), DatasetFolder(tmp_path / "again", "zk0/again")

    for whole, numbers in ((one.rows.states, again.rows.states), (one.rows.actions, again.rows.actions)):
        assert numbers.tobytes() == whole[: len(numbers)].tobytes()


def leave_memory_behind(rng: np.random.Generator) -> None:
    """Small numbers all over the heap, as an earlier encoder or renderer leaves them."""
    for size in rng.integers(200, 120_000, 100):
        rng.integers(-64, 64, int(size), dtype=np.int16)
    kept = [rng.integers(-64, 64, int(size), dtype=np.int16) for size in rng.integers(200, 120_000, 60)]
    kept.clear()


def encode(pictures: list[np.ndarray]) -> bytes:
    """All packets, by the settings with which recordings are made."""
    codec = av.codec.CodecContext.create(ENCODER["vcodec"], "w")
    codec.height, codec.width = pictures[0].shape[:2]
    codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, 10), Fraction(10)
    codec.options = RGBEncoderConfig(**ENCODER).get_codec_options(1, as_strings=True)
    frames = [av.VideoFrame.from_ndarray(picture) for picture in pictures]
    return b"".join(bytes(packet) for frame in [*frames, None] for packet in codec.encode(frame))


def test_what_a_process_did_before_plays_no_part_in_pictures() -> None:
    """With x264's macroblock tree about every third of these is another one."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = [np.roll(blocks, 3 * step, 1) for step in range(24)]
    found = set()

    for _ in range(12):
        leave_memory_behind(rng)
        found.add(encode(pictures))

    assert len(found) == 1


@contextmanager
def busy_cores() -> Iterator[None]:
    """A thread for each core that computes, allocates and frees."""
    stop = threading.Event()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            leave_memory_behind(rng)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(os.cpu_count() or 2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_same_seed_same_pictures_while_all_cores_are_busy(tmp_path: Path, cube_task: SimTask, first_seed: int) -> None:
    for name, meanwhile in (("one", nullcontext()), ("again", busy_cores())):
        with meanwhile:
            record_dataset(
                cube_task, tmp_path / name, repo_id="zk0/x", episodes=2, seed=first_seed, noise=0.25, image_size=96
            )

    assert digest_folder(tmp_path / "again" / "videos") == digest_folder(tmp_path / "one" / "videos")


def test_long_episode_loses_no_picture(tmp_path: Path, cube_task: SimTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is handed to the encoder at once, faster than that encodes: LeRobot's own queue of 30 would drop some."""
    episode = next(record_episodes(cube_task, iter([20, 21, 22]), 1, 96, 0.25))
    longer = replace(
        episode,
        states=np.concatenate([episode.states] * 10),
        actions=np.concatenate([episode.actions] * 10),
        images={name: np.concatenate([pictures] * 10) for name, pictures in episode.images.items()},
    )
    monkeypatch.setattr("zk0.data.recordings.record_episodes", lambda *_: iter([longer]))

    record_dataset(cube_task, tmp_path / "x", repo_id="zk0/x", episodes=1, seed=0, noise=0.0, image_size=96)

    for video in (tmp_path / "x").rglob("*.mp4"):
        with av.open(str(video)) as container:
            assert sum(packet.size > 0 for packet in container.demux(video=0)) == len(longer.states) >= 100


def test_pictures_survive_the_encoder(read: LeRobotDataset, cube_task: SimTask, first_seed: int) -> None:
    """Within what H.264 loses, frame by frame, so none is shifted in time."""
    episode = next(record_episodes(cube_task, iter([first_seed]), 1, 96, 0.25))
    for row in (0, 5, len(episode.states) - 1):
        for camera, images in episode.images.items():
            decoded = read[row][f"observation.images.{camera}"]
            error = torch.abs(decoded * 255 - torch.from_numpy(images[row]).permute(2, 0, 1).float()).mean()
            assert error < 4.0


def test_recording_that_fails_leaves_the_old_one(recorded: Path, tmp_path: Path, cube_task: SimTask) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "kept").write_text("1")
    before = digest_folder(folder)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_dataset(cube_task, folder, repo_id="zk0/x", episodes=2, seed=0, noise=0.0, image_size=16, progress=stop)

    assert digest_folder(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_seed_belongs_to_run_and_name() -> None:
    assert recording_seed(1, "a") == recording_seed(1, "a")
    assert len({recording_seed(1, "a"), recording_seed(2, "a"), recording_seed(1, "b")}) == 3
    assert not np.any([recording_seed(seed, "a") >= 90_000 for seed in range(1000)])
