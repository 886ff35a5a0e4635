"""Record the scripted expert into a LeRobotDataset v3, as a robot owner's recorder would."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NotRequired, TypedDict

import av
import datasets
import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.conventions import CONVENTION_KEY
from zk0.data.frames import ACTION, IMAGES, STATE
from zk0.data.sim.arm import ROBOT_TYPE
from zk0.data.sim.expert import record_episodes
from zk0.data.sim.rooms import PLAIN, Room, room_of
from zk0.data.sim.simulation import CAMERAS, CONTROL_HZ
from zk0.data.sim.tasks import SimTask, find_task
from zk0.files import replaced_folder
from zk0.params import Params
from zk0.seeding import derive_seed
from zk0.so100 import FEATURE_NAMES
from zk0.sources import Source

IMAGE_SIZE = 96
# H.264 decodes fastest of the common codecs, and a key frame every two frames makes random
# access cheap; at this size neither costs much disk. x264's macroblock tree reads memory that it
# has not written, so with it the pictures of one seed depend on what the process did before; over
# two frames there is nothing for it to look ahead to.
ENCODER = {"vcodec": "h264", "g": 2, "crf": 18, "extra_options": {"mbtree": 0}}


class _Feature(TypedDict):
    """As LeRobot describes a feature."""

    dtype: str
    shape: tuple[int, ...]
    names: list[str]
    info: NotRequired[dict[str, str]]


def features(image_size: int) -> dict[str, _Feature]:
    """The dataset's features, named as LeRobot's SO-100 recorder names them."""
    vector: _Feature = {"dtype": "float32", "shape": (len(FEATURE_NAMES),), "names": list(FEATURE_NAMES)}
    vector["info"] = {CONVENTION_KEY: "degrees"}  # no motor's steps show in simulated values
    image: _Feature = {"dtype": "video", "shape": (image_size, image_size, 3), "names": ["height", "width", "channels"]}
    return {ACTION: vector.copy(), STATE: vector.copy()} | {f"{IMAGES}.{camera}": image.copy() for camera in CAMERAS}


def recording_seed(seed: int, name: str) -> int:
    """First scene seed of a recording: below 100,000, where evaluation's scenes begin."""
    return derive_seed(seed, "recording", name) % 90_000


def record_dataset(
    task: SimTask,
    folder: Path,
    *,
    repo_id: str,
    episodes: int,
    seed: int,
    noise: float,
    image_size: int,
    room: Room = PLAIN,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Record a task into a new dataset folder.

    Args:
        task: What the expert does.
        folder: Replaced as a whole once everything is written.
        repo_id: Name noted in the dataset.
        episodes: Successful demonstrations to keep.
        seed: First scene seed; the same seed records the same states, actions and pictures.
        noise: Disturbance while recording, as a share of the expert's largest step.
        image_size: Pixels of both cameras.
        room: Where the arm stands.
        progress: Called after each episode.
    """
    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)  # LeRobot hands libav's messages back to stderr
    with replaced_folder(folder) as temporary:
        root = temporary / "dataset"
        dataset = LeRobotDataset.create(
            repo_id,
            fps=CONTROL_HZ,
            features=features(image_size),
            root=root,
            robot_type=ROBOT_TYPE,
            use_videos=True,
            video_backend="pyav",
            rgb_encoder=RGBEncoderConfig(**ENCODER),
            streaming_encoding=True,
            encoder_queue_maxsize=0,  # no limit: a full queue drops frames, and an episode comes all at once
            encoder_threads=1,
        )
        try:
            for episode in record_episodes(task, itertools.count(seed), episodes, image_size, noise, room):
                for row, (state, action) in enumerate(zip(episode.states, episode.actions, strict=True)):
                    frame: dict[str, object] = {STATE: state, ACTION: action, "task": episode.sentence}
                    frame |= {f"{IMAGES}.{name}": np.ascontiguousarray(i[row]) for name, i in episode.images.items()}
                    dataset.add_frame(frame)
                dataset.save_episode(parallel_encoding=False)
                progress()
        finally:  # or what LeRobot still holds is written later, when the folder is gone
            dataset.finalize()
        for part in root.iterdir():
            part.rename(temporary / part.name)
        root.rmdir()


def record_source(folder: Path, params: Params, name: str, source: Source, progress: Callable[[], None]) -> None:
    """Record a source of params into ``folder/name``.

    Args:
        folder: Where the recordings go.
        params: Episodes, noise and seed.
        name: The source's, which decides its scenes.
        source: The simulated task, and the room.
        progress: Called after each episode.
    """
    record_dataset(
        find_task(source.name),
        folder / name,
        repo_id=f"zk0/{name}",
        episodes=params.data.episodes,
        seed=recording_seed(params.seed, name),
        noise=params.data.noise,
        image_size=IMAGE_SIZE,
        room=room_of(source.room),
        progress=progress,
    )
