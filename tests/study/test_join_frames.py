"""Frames of several sites as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zk0.data.frames import Frames, MemoryImages
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.errors import DataError
from zk0.params import FeatureParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import features_for
from zk0.study.project import join_frames


@pytest.fixture
def parts(prepared: Path, frames: Frames) -> list[Frames]:
    second = read_manifests(prepared)[0][1]
    return [frames, load_frames(second, prepared, second.train_episodes, 0)]


def test_a_batch_is_what_the_parts_give(parts: list[Frames]) -> None:
    first, second = parts
    joined = join_frames(parts)
    own = np.array([len(second) - 1, 0, 7])  # the end of an episode, where actions are repeated, among them

    batch = joined.batch(own + len(first), 8)

    expected = second.batch(own, 8)
    assert len(joined) == len(first) + len(second)
    assert batch["task"] == expected.pop("task")
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name


def test_rows_of_both_parts_keep_their_order(parts: list[Frames]) -> None:
    first, second = parts
    joined = join_frames(parts)
    camera = joined.images.cameras[0]

    pixels = joined.images.read(camera, np.array([len(first) + 3, 2, len(first), 5]))

    assert torch.equal(pixels[[0, 2]], second.images.read(camera, np.array([3, 0])))
    assert torch.equal(pixels[[1, 3]], first.images.read(camera, np.array([2, 5])))


def test_episodes_keep_what_identifies_their_pictures(parts: list[Frames], tmp_path: Path) -> None:
    joined = join_frames(parts)

    digests = [clip.digests for clip in joined.clips()]

    assert digests == [clip.digests for part in parts for clip in part.clips()]
    assert [clip.length for clip in joined.clips()] == [clip.length for part in parts for clip in part.clips()]
    assert not joined.images.fits and joined.images.nbytes == sum(part.images.nbytes for part in parts)


def test_features_of_a_site_serve_the_joined_frames(parts: list[Frames], loaded: LoadedPolicy, tmp_path: Path) -> None:
    settings = FeatureParams()
    own = features_for(loaded, parts[1], settings, tmp_path)
    assert own is not None
    own.ensure(np.arange(len(parts[1])))

    joined = features_for(loaded, join_frames(parts), settings, tmp_path)

    assert joined is not None
    assert joined.work(np.arange(len(parts[0]), len(parts[0]) + len(parts[1]))).frames == 0
    assert joined.work(np.arange(len(parts[0]))).frames > 0


def test_one_part_stays_as_it_is(frames: Frames) -> None:
    assert join_frames([frames]) is frames


def test_other_cameras_are_refused(frames: Frames) -> None:
    fewer = {camera: frames.images.read(camera, np.arange(len(frames))) for camera in frames.images.cameras[:1]}
    arrays = {camera: (pixels.permute(0, 2, 3, 1) * 255).byte().numpy() for camera, pixels in fewer.items()}

    with pytest.raises(DataError, match=r"frames of part 1 are .* they cannot be joined"):
        join_frames([frames, replace(frames, images=MemoryImages(arrays))])
