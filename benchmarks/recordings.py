"""Recordings to measure on; written in a process of their own, whose chatter goes to a log.

A real LeRobotDataset as an SO-100's owner has it: two 480x640 cameras at 30 frames per second; and the simulated arm's.
"""

from __future__ import annotations

from pathlib import Path

import av
import datasets
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from benchmarks.projects import CACHE, CAMERAS_ID
from zk0.data.frames import ACTION, IMAGES, STATE
from zk0.data.recordings import IMAGE_SIZE, record_dataset
from zk0.data.sim.tasks import find_task
from zk0.data.units import JOINT_HIGH, JOINT_LOW
from zk0.files import replaced_folder
from zk0.so100 import FEATURE_NAMES

CAMERAS = ("top", "wrist")
HEIGHT, WIDTH, FPS = 480, 640, 30
SENTENCE = "push the red cube to the left"


def cameras(*, episodes: int, frames: int) -> str:
    """The folder of the dataset of two cameras, written by LeRobot with its own defaults when it is not there yet.

    Args:
        episodes: Episodes in it.
        frames: Frames of each.
    """
    folder = (CACHE / "data" / f"arm-{episodes}x{frames}").resolve()
    if not (folder / "meta" / "info.json").is_file():
        datasets.disable_progress_bars()
        av.logging.set_libav_level(av.logging.ERROR)
        vector = {"dtype": "float32", "shape": (len(FEATURE_NAMES),), "names": list(FEATURE_NAMES)}
        image = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
        features = {ACTION: dict(vector), STATE: dict(vector)} | {f"{IMAGES}.{name}": dict(image) for name in CAMERAS}
        with replaced_folder(folder) as temporary:
            dataset = LeRobotDataset.create(
                CAMERAS_ID,
                fps=FPS,
                features=features,
                root=temporary / "dataset",
                robot_type="so100",
                use_videos=True,
                video_backend="pyav",
                streaming_encoding=True,
                encoder_threads=1,
            )
            for episode in range(episodes):
                _add_episode(dataset, episode, frames)
            dataset.finalize()
            for part in (temporary / "dataset").iterdir():
                part.rename(temporary / part.name)
            (temporary / "dataset").rmdir()
    return str(folder)


def simulated(*, task: str, folder: str, episodes: int) -> None:
    """Record a task of the simulated arm, unless it is there."""
    if not (Path(folder) / "meta" / "info.json").is_file():
        record_dataset(
            find_task(task),
            Path(folder),
            repo_id=f"zk0/{task}",
            episodes=episodes,
            seed=0,
            noise=0.25,
            image_size=IMAGE_SIZE,
        )


def _add_episode(dataset: LeRobotDataset, episode: int, frames: int) -> None:
    rng = np.random.default_rng(episode)
    texture = {name: _texture(rng) for name in CAMERAS}
    state = rng.uniform(JOINT_LOW, JOINT_HIGH).astype(np.float32)
    for row in range(frames):
        action = np.clip(state + rng.normal(0, 2, len(state)), JOINT_LOW, JOINT_HIGH).astype(np.float32)
        frame = {STATE: state, ACTION: action, "task": SENTENCE}
        frame |= {f"{IMAGES}.{name}": _picture(texture[name], rng, row) for name in CAMERAS}
        dataset.add_frame(frame)
        state = action
    dataset.save_episode(parallel_encoding=False)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """A table top with some detail, so that the encoder has something to do."""
    coarse = rng.integers(60, 200, (HEIGHT // 16, WIDTH // 16, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)


def _picture(texture: np.ndarray, rng: np.random.Generator, row: int) -> np.ndarray:
    """The table seen by a camera that moves, with a red cube on it and the sensor's noise."""
    picture = np.roll(texture, (2 * row, 3 * row), (0, 1)).astype(np.int16)
    left = 80 + 8 * row % (WIDTH - 200)
    picture[200:280, left : left + 80] = (190, 40, 40)
    picture += rng.integers(-6, 7, picture.shape, dtype=np.int16)
    return picture.clip(0, 255).astype(np.uint8)
