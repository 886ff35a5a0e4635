"""From manifest to batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from manifests import anew

from zk0.data.dataset import open_dataset
from zk0.data.frames import ACTION, STATE, Frames, from_episodes
from zk0.data.load import VideoImages, dataset_of, load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.sim.expert import Episode
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


def test_images_are_decoded_when_first_asked_for_and_kept_if_they_fit(prepared: Path, manifest: Manifest) -> None:
    kept = load_frames(manifest, prepared, manifest.held_out_episodes, PLENTY)
    lazy = load_frames(manifest, prepared, manifest.held_out_episodes, 0)
    numbers = kept.nbytes
    assert numbers == lazy.nbytes and kept.images.nbytes == 0

    for images in (kept.images, lazy.images):
        images.read(TOP, np.array([0]), keep=False)
        assert images.nbytes == 0
        images.read(TOP, np.array([0]))

    assert kept.images.nbytes == manifest.held_out_frames * 3 * 96 * 96 == kept.nbytes - numbers
    assert lazy.images.nbytes == 0


def test_rows_may_repeat_and_cross_episodes(prepared: Path, manifest: Manifest) -> None:
    lazy = load_frames(manifest, prepared, manifest.train_episodes, 0)
    edge = int(lazy.last[0])
    rows = np.array([edge + 1, edge, 3, edge + 1, edge - 1])

    images = lazy.images.read(WRIST, rows)

    for row, image in zip(rows, images, strict=True):
        assert torch.equal(image, lazy.images.read(WRIST, np.array([row]))[0])


def test_images_of_another_size_than_the_metadata_says(tmp_path: Path, recorded: Path, manifest: Manifest) -> None:
    shutil.copytree(recorded, tmp_path / "cubes")
    path = tmp_path / "cubes" / "meta" / "info.json"
    path.write_text(path.read_text().replace("96", "48"))
    frames = load_frames(manifest.model_copy(update={"root": "cubes"}), tmp_path, manifest.held_out_episodes, 0)

    with pytest.raises(DataError, match=r"episode \d is \(3, 96, 96\), but meta/info\.json says \(3, 48, 48\)"):
        frames.images.read(TOP, np.array([0]))


def test_sites_of_one_source_share_its_tables(prepared: Path, recorded: Path, tmp_path: Path) -> None:
    one, other = (load_frames(m, prepared, m.train_episodes, 0).images for m in read_manifests(prepared)[0])
    assert isinstance(one, VideoImages) and isinstance(other, VideoImages)
    assert one.dataset is other.dataset

    folder = Path(shutil.copytree(recorded, tmp_path / "cubes"))
    before = open_dataset(folder, "zk0/cubes")
    assert open_dataset(folder, "zk0/cubes") is before
    path = folder / "meta" / "info.json"
    path.write_text(path.read_text() + " ")
    assert open_dataset(folder, "zk0/cubes") is not before


def test_clips_are_the_episodes(prepared: Path, manifest: Manifest) -> None:
    frames = load_frames(manifest, prepared, manifest.train_episodes, 0)
    clips = frames.clips()

    assert [clip.episode for clip in clips] == sorted(manifest.train_episodes)
    assert [clip.start for clip in clips] == [0, *np.cumsum([clip.length for clip in clips])[:-1]]
    assert sum(clip.length for clip in clips) == len(frames)
    assert len({digest for clip in clips for digest in clip.digests.values()}) == 2 * len(clips)
    assert frames.clips() is clips
    again = load_frames(manifest, prepared, manifest.train_episodes[1:], PLENTY).clips()
    assert {clip.episode: clip.digests for clip in again}.items() <= {c.episode: c.digests for c in clips}.items()


def test_clip_with_other_times_is_another(tmp_path: Path, recorded: Path, manifest: Manifest) -> None:
    """Numbers and video may be the same while other pictures belong to the frames; `zk0 prepare` takes it anew."""
    shutil.copytree(recorded, tmp_path / "cubes")
    moved = manifest.model_copy(update={"root": "cubes"})
    before = load_frames(moved, tmp_path, moved.train_episodes, 0).clips()
    (path,) = (tmp_path / "cubes" / "data").rglob("*.parquet")
    table = pq.read_table(path)
    times = table.column("timestamp").to_pylist()
    row = table.column("episode_index").to_pylist().index(before[1].episode)
    times[row] = times[row + 1]
    column = pa.array(times, type=table.schema.field("timestamp").type)
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", column), path)

    with pytest.raises(DataError, match=f"episode {before[1].episode} of .* has changed since `zk0 prepare`"):
        load_frames(moved, tmp_path, moved.train_episodes, 0)
    after = load_frames(anew(moved, tmp_path), tmp_path, moved.train_episodes, 0).clips()

    assert after[0] == before[0] and after[1].digests[TOP] != before[1].digests[TOP]


def test_limit_counts_the_bytes_of_all_images(prepared: Path, manifest: Manifest) -> None:
    episode = manifest.held_out_episodes[:1]
    size = manifest.held_out_frames * 2 * 96 * 96 * 3

    assert load_frames(manifest, prepared, episode, size).images.fits
    assert not load_frames(manifest, prepared, episode, size - 1).images.fits


def test_cameras_go_by_the_policys_names(prepared: Path, manifest: Manifest) -> None:
    renamed = anew(manifest.model_copy(update={"camera_sources": {"observation.images.camera1": WRIST}}), prepared)
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


def test_pictures_in_memory_are_known_by_their_bytes() -> None:
    one, other = toy().clips(), toy().clips()
    assert [(clip.start, clip.length) for clip in one] == [(0, 3), (3, 2)]
    assert one == other and one[0].digests[TOP] != one[1].digests[TOP]
    assert toy().images.shape(TOP) == (3, 1, 1)


def test_batch_without_images_has_none() -> None:
    assert TOP not in toy().batch(np.array([0]), chunk=2, with_images=False)
