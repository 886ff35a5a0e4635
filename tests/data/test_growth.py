"""A week of recording: what a champion trained on is never held out from the next, and episodes stay what they are."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pytest
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from zk0.data.load import load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.recordings import ENCODER
from zk0.errors import DataError
from zk0.federation.client_app import app as client_app
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import run_federation
from zk0.federation.start import locked_base
from zk0.files import write_json
from zk0.params import Params, parse_params
from zk0.pipeline import prepare
from zk0.so100 import FEATURE_NAMES
from zk0.sources_lock import BASE_VARIABLE, resolve_sources

NAME = "owner/cubes"
CAMERA = "observation.images.top"


def record(folder: Path, episodes: range) -> None:
    """What an owner adds in a day, by LeRobot's own recorder."""
    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)
    settings: dict[str, Any] = {"video_backend": "pyav", "rgb_encoder": RGBEncoderConfig(**ENCODER)}
    if folder.exists():
        dataset = LeRobotDataset.resume(NAME, root=folder, **settings)
    else:
        vector = {"dtype": "float32", "shape": (6,), "names": list(FEATURE_NAMES)}
        image = {"dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
        features = {"observation.state": vector, "action": dict(vector), CAMERA: image}
        dataset = LeRobotDataset.create(NAME, 10, features, root=folder, robot_type="so101_follower", **settings)
    for episode in episodes:
        rng = np.random.default_rng(episode)
        turns = np.cumsum(rng.uniform(-6, 6, (9, 6)), axis=0) + np.array([0, -60, 50, 40, 0, 40])
        picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        for step in range(8):
            frame = {
                "observation.state": turns[step].astype(np.float32),
                "action": turns[step + 1].astype(np.float32),
                CAMERA: np.roll(picture, step, 0),
                "task": "push the cube",
            }
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def prepared(root: Path, params: Params) -> list[Manifest]:
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    return read_manifests(root)[0]


def params_of(folder: Path, **data: Any) -> Params:
    own = {"sites": {"cubes": f"local:{folder}"}, "conventions": {"cubes": "degrees"}, "held_out": 0.3}
    return parse_params({"policy": {"base": "random:nano"}, "data": own | data})


@pytest.mark.parametrize("sites", [1, 2])
def test_week_of_growth(tmp_path: Path, sites: int) -> None:
    """Each night starts from the day before's model: it has been trained on all that was ever a training episode."""
    partition = {"partition": {"scheme": "equal", "sites": sites}} if sites > 1 else {}
    params = params_of(tmp_path / "own", **partition)
    trained: set[int] = set()
    known: dict[int, str] = {}
    done, counts = 0, [6, 1, 2, 0, 3, 1, 4]

    for count in counts:
        if count:
            record(tmp_path / "own", range(done, done + count))
        done += count
        manifests = prepared(tmp_path, params)

        held_out = {episode for manifest in manifests for episode in manifest.held_out_episodes}
        digests = {e: d for manifest in manifests for e, d in manifest.episode_digests.items()}
        assert trained.isdisjoint(held_out)
        assert known.items() <= digests.items() and len(digests) == done
        trained |= {episode for manifest in manifests for episode in manifest.train_episodes}
        known = digests


def test_nights_that_start_from_the_model_of_the_night_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds and all: no model is judged on what it, or one that it comes from, was trained on."""
    content = params_of(tmp_path / "own", missing_cameras="empty").model_dump(mode="json")
    small = {"training": {"local_steps": 1, "batch": 2}, "federation": {"rounds": 1}, "evaluation": {"loss_draws": 1}}
    params = parse_params(content | {"threads": 1} | small)
    trained: set[int] = set()
    monkeypatch.delenv(BASE_VARIABLE, raising=False)

    for night, episodes in enumerate((range(4), range(4, 7))):
        record(tmp_path / "own", episodes)
        prepared(tmp_path, params)
        told = run_federation(InProcessGrid(client_app, tmp_path, 1, 10**9), tmp_path, params, locked_base(tmp_path))
        site = told.sites["cubes"]
        assert trained.isdisjoint(site.held_out_episodes)
        assert len(site.train_episodes) + len(site.held_out_episodes) == episodes.stop
        trained |= set(site.train_episodes)
        champion = shutil.copytree(tmp_path / "checkpoints" / "best", tmp_path / f"champion-{night}")
        monkeypatch.setenv(BASE_VARIABLE, str(champion))

    assert told.base.source.endswith("champion-0")


def test_digests_cover_pictures(tmp_path: Path) -> None:
    """The same motion, with another picture in one episode."""
    record(tmp_path / "own", range(4))
    (before,) = prepared(tmp_path, params_of(tmp_path / "own"))
    (video,) = (tmp_path / "own").rglob("*.mp4")
    content = bytearray(video.read_bytes())
    span = len(content) - 60
    content[span] ^= 1
    video.write_bytes(content)
    os.utime(video, (time.time() + 5, time.time() + 5))
    (after,) = prepared(tmp_path, params_of(tmp_path / "own"))

    changed = {e for e, digest in before.episode_digests.items() if after.episode_digests[e] != digest}
    assert len(changed) == 1 and after.digest != before.digest
    assert (after.train_episodes, after.held_out_episodes) == (before.train_episodes, before.held_out_episodes)
    with pytest.raises(DataError, match=f"episode {min(changed)} of .* has changed since `zk0 prepare`"):
        load_frames(before, tmp_path, sorted(changed), 10**9)
