"""From manifest to batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from zk0.data.frames import ACTION, STATE, Frames, from_episodes
from zk0.data.load import VideoImages, dataset_of, load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.sim.episodes import Episode
from zk0.errors import DataError

TOP = "observation.images.top"
WRIST = "observation.images.wrist"
PLENTY = 10**9


@pytest.fixture
def manifest(prepared: Path) -> Manifest:
    """Of the first site."""
    return read_manifests(prepared)[0][0]


def test_frames_are_those_of_the_episodes_asked_for(prepared: Path, manifest: Manifest) -> None:
    frames = load_frames(manifest, prepared, manifest.train_episodes, PLENTY)
    table = dataset_of(manifest, prepared).table
    expected = table[table["episode_index"].isin(manifest.train_episodes)]

    assert len(frames) == manifest.train_frames == len(expected)
    assert frames.episodes.tolist() == expected["episode_index"].tolist()
    assert np.array_equal(frames.states, np.stack(expected[STATE].tolist()))
    assert set(frames.sentences) <= {"touch the red cube", "touch the green cube"}
    ends = np.flatnonzero(np.diff(frames.episodes, append=-1))
    assert sorted(set(frames.last.tolist())) == ends.tolist()
    assert all(frames.episodes[row] == frames.episodes[last] for row, last in enumerate(frames.last))


def test_images_on_demand_are_those_in_memory(prepared: Path, manifest: Manifest) -> None:
    episodes = manifest.train_episodes[:2]
    kept = load_frames(manifest, prepared, episodes, PLENTY)
    lazy = load_frames(manifest, prepared, episodes, 0)
    rows = np.array([len(kept) - 1, 0, 7])

    assert isinstance(kept.images, VideoImages) and kept.images.fits
    assert isinstance(lazy.images, VideoImages) and not lazy.images.fits
    for camera in (TOP, WRIST):
        images = kept.images.read(camera, rows)
        assert images.shape == (3, 3, 96, 96) and images.dtype == torch.float32
        assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
        assert torch.equal(images, lazy.images.read(camera, rows))


def test_limit_counts_the_bytes_of_all_images(prepared: Path, manifest: Manifest) -> None:
    episode = manifest.held_out_episodes[:1]
    size = manifest.held_out_frames * 2 * 96 * 96 * 3

    assert load_frames(manifest, prepared, episode, size).images.fits
    assert not load_frames(manifest, prepared, episode, size - 1).images.fits


def test_cameras_go_by_the_policys_names(prepared: Path, manifest: Manifest) -> None:
    renamed = manifest.model_copy(update={"camera_sources": {"observation.images.camera1": WRIST}})
    episode = manifest.held_out_episodes
    own = load_frames(manifest, prepared, episode, PLENTY).images.read(WRIST, np.array([2]))

    for limit in (PLENTY, 0):
        images = load_frames(renamed, prepared, episode, limit).images
        assert images.cameras == ("observation.images.camera1",)
        assert torch.equal(images.read("observation.images.camera1", np.array([2])), own)


def test_episode_that_changed_since_prepare_is_refused(tmp_path: Path, recorded: Path, manifest: Manifest) -> None:
    shutil.copytree(recorded, tmp_path / "cubes")
    moved = manifest.model_copy(update={"root": "cubes"})
    changed, same = manifest.train_episodes[1], manifest.train_episodes[0]
    (path,) = (tmp_path / "cubes" / "data").rglob("*.parquet")
    table = pq.read_table(path)
    values = table.column(ACTION).to_pylist()
    values[table.column("episode_index").to_pylist().index(changed)][0] += 0.01
    column = pa.array(values, type=table.schema.field(ACTION).type)
    pq.write_table(table.set_column(table.column_names.index(ACTION), ACTION, column), path)

    load_frames(moved, tmp_path, [same], PLENTY)
    with pytest.raises(
        DataError, match=f"partition 'cubes-0': episode {changed} of .* has changed since `zk0 prepare`"
    ):
        load_frames(moved, tmp_path, [same, changed], PLENTY)


def test_episode_that_is_gone_is_refused(tmp_path: Path, recorded: Path, manifest: Manifest) -> None:
    shutil.copytree(recorded, tmp_path / "cubes")
    gone = manifest.train_episodes[0]
    (path,) = (tmp_path / "cubes" / "data").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.array([e != gone for e in table.column("episode_index").to_pylist()])), path)

    with pytest.raises(DataError, match=f"episode {gone} of .* is missing"):
        load_frames(manifest.model_copy(update={"root": "cubes"}), tmp_path, [gone], PLENTY)


def toy() -> Frames:
    """Two episodes of three and two frames; states are 0 to 4 and actions ten times that."""

    def episode(first: int, count: int) -> Episode:
        states = np.arange(first, first + count, dtype=np.float32)[:, None]
        images = {"top": np.full((count, 1, 1, 3), 51 * first, dtype=np.uint8)}
        return Episode(0, f"from {first}", states, states * 10, images, np.zeros(2))

    return from_episodes([episode(0, 3), episode(3, 2)])


def test_chunk_repeats_the_last_action_past_an_episodes_end() -> None:
    batch = toy().batch(np.array([1, 0, 3]), chunk=3)

    assert batch[STATE].tolist() == [[1], [0], [3]]
    assert batch[ACTION][..., 0].tolist() == [[10, 20, 20], [0, 10, 20], [30, 40, 40]]
    assert batch["action_is_pad"].tolist() == [[False, False, True], [False] * 3, [False, False, True]]
    assert batch["task"] == ["from 0", "from 0", "from 3"]
    torch.testing.assert_close(batch[TOP].flatten(), torch.tensor([0.0] * 6 + [0.6] * 3))


def test_batch_without_images_has_none() -> None:
    assert TOP not in toy().batch(np.array([0]), chunk=2, with_images=False)
