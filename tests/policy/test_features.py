"""Cached features: the same bits in whatever order they were needed, and never those of something else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from manifests import anew
from policy_on_frames import flow_loss

from zk0.data.dataset import _opened
from zk0.data.frames import Frames, MemoryImages
from zk0.data.load import load_frames
from zk0.data.manifest import Manifest, read_manifests
from zk0.params import FeatureParams
from zk0.policy import features as features_package
from zk0.policy.checkpoint import LoadedPolicy, with_stats
from zk0.policy.features import FeatureCacheError, FrameFeatures, features_folder, features_for, regime
from zk0.policy.features import frames as frames_module
from zk0.policy.features.backbone import backbone_digest, image_block
from zk0.policy.features.store import FeatureFile, Layout, create
from zk0.policy.prefix import embed_images, encode_prefix
from zk0.policy.start import build_nano
from zk0.training.local import flow_draws

TOP, WRIST = "observation.images.top", "observation.images.wrist"
ROWS = np.array([11, 3, 3, 30])
Features = Callable[..., FrameFeatures]
FP32 = {"dtype": "fp32", "block": 8}


@pytest.fixture
def features(loaded: LoadedPolicy, frames: Frames, tmp_path: Path) -> Features:
    """``features(**settings)`` of the recording, kept below ``tmp_path``."""

    def make(frames: Frames = frames, root: Path = tmp_path, **settings: object) -> FrameFeatures:
        found = features_for(loaded, frames, FeatureParams.model_validate(settings), root)
        assert found is not None
        return found

    return make


@pytest.fixture
def vision_weight(loaded: LoadedPolicy) -> Iterator[torch.nn.Parameter]:
    """A weight of the vision encoder, restored afterwards."""
    weight = loaded.policy.model.vlm_with_expert.get_vlm_model().vision_model.post_layernorm.weight
    before = weight.detach().clone()
    yield weight
    weight.requires_grad_(False)
    weight.copy_(before)


@pytest.fixture
def own_data(prepared: Path, recorded: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """A copy of the recording that may be spoilt, and the first site's manifest for it."""
    shutil.copytree(recorded, tmp_path / "cubes")
    return tmp_path, read_manifests(prepared)[0][0].model_copy(update={"root": "cubes"})


def load(own_data: tuple[Path, Manifest]) -> Frames:
    root, manifest = own_data
    return load_frames(manifest, root, manifest.train_episodes, 0)


def block_of(frames: Frames, row: int, block: int) -> np.ndarray:
    """The rows that are encoded together with one."""
    first = int(np.flatnonzero(frames.episodes == frames.episodes[row])[0])
    start = first + (row - first) // block * block
    return np.arange(start, min(start + block, int(frames.last[row]) + 1))


# -- what they are -------------------------------------------------------------------------------


def test_tokens_are_those_of_the_vision_encoder(loaded: LoadedPolicy, frames: Frames, features: Features) -> None:
    found = features(**FP32).read(ROWS)

    assert list(found) == [TOP, WRIST] == list(loaded.cameras)
    for camera, tokens in found.items():
        assert tokens.shape == (4, 16, 128) and tokens.dtype == torch.float32
        for row, token in zip(ROWS.tolist(), tokens, strict=True):
            rows = block_of(frames, row, 8)
            with torch.no_grad():
                (block,) = embed_images(loaded.policy, {camera: frames.images.read(camera, rows)})
                (alone,) = embed_images(loaded.policy, {camera: frames.images.read(camera, np.array([row]))})
            assert torch.equal(token, block[row - rows[0]])
            torch.testing.assert_close(token, alone[0], atol=1e-5, rtol=1e-5)


def test_prefix_is_that_of_the_language_model(loaded: LoadedPolicy, frames: Frames, features: Features) -> None:
    long = "touch the red cube, and then touch it again from the other side"
    first = int(frames.last[0]) + 1
    frames = replace(frames, sentences=(long,) * first + frames.sentences[first:])
    rows = np.array([2, first + 1])

    kv = features(frames, cache="prefix", **FP32).read(rows)["kv"]

    tokens = embed_images(loaded.policy, {c: frames.images.read(c, rows) for c in loaded.cameras})
    expected = encode_prefix(loaded, tokens, [frames.sentences[row] for row in rows])
    assert kv.shape == expected.shape
    torch.testing.assert_close(kv, expected, atol=1e-4, rtol=1e-4)
    short = features(frames, cache="prefix", **FP32).read(rows[1:])["kv"]
    assert short.shape[3] < kv.shape[3] and torch.equal(short[0], kv[1, :, :, : short.shape[3]])


def test_bf16_rounds_what_fp32_keeps(features: Features) -> None:
    rounded, exact = features(block=8).read(ROWS)[TOP], features(**FP32).read(ROWS)[TOP]

    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.to(torch.bfloat16))


def test_camera_that_the_data_lacks_is_left_out(frames: Frames, features: Features) -> None:
    pixels = (frames.images.read(TOP, np.arange(len(frames))) * 255).round().to(torch.uint8)
    one_eyed = replace(frames, images=MemoryImages({TOP: pixels.permute(0, 2, 3, 1).contiguous().numpy()}))

    found = features(one_eyed, **FP32).read(ROWS)

    assert list(found) == [TOP]
    assert torch.equal(found[TOP], features(**FP32).read(ROWS)[TOP])


@pytest.mark.parametrize(
    ("cache", "dtype", "tolerance"),
    [("tokens", "fp32", 1e-5), ("prefix", "fp32", 1e-5), ("tokens", "bf16", 0.02), ("prefix", "bf16", 0.02)],
)
def test_loss_and_gradients_are_those_of_lerobot_on_the_images(
    loaded: LoadedPolicy, frames: Frames, features: Features, cache: str, dtype: str, tolerance: float
) -> None:
    """Rounding to bf16 may move a gradient by a fiftieth of its norm."""
    rows = np.array([11, 3, 3, 30, 16, 20])
    noise, times = flow_draws(loaded.policy.config, len(rows), torch.Generator().manual_seed(1))
    kept = features(cache=cache, dtype=dtype)
    trained = [p for p in loaded.policy.parameters() if p.requires_grad]
    loaded.policy.train()

    batch = loaded.preprocess(frames.batch(rows, loaded.chunk))
    expected = loaded.policy(batch, noise=noise, time=times)[0]
    loss = flow_loss(loaded, frames, rows, noise, times, kept)

    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    for one, other in zip(
        torch.autograd.grad(loss, trained, allow_unused=True),
        torch.autograd.grad(expected, trained, allow_unused=True),
        strict=True,
    ):
        if other is None or not other.any():
            assert one is None or not one.any()
        else:
            assert one is not None and float((one - other).norm() / other.norm()) < max(tolerance, 1e-4)


# -- when they are computed ----------------------------------------------------------------------


def test_order_and_interruption_change_no_bit(frames: Frames, features: Features, tmp_path: Path) -> None:
    """One reads row by row and backwards, one is stopped halfway and goes on, one computes all at once."""
    rows = np.arange(len(frames))
    one, other, ahead = (features(root=tmp_path / name, block=8) for name in ("one", "other", "ahead"))
    for row in rows[::-7]:
        one.read(np.array([row]))

    def stop(count: int) -> None:
        if other.work(rows).frames < len(frames):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.ensure(rows, stop)
    assert 0 < other.work(rows).frames < len(frames)
    ahead.ensure(rows)

    for camera in (TOP, WRIST):
        expected = ahead.read(rows)[camera]
        assert torch.equal(one.read(rows)[camera], expected)
        assert torch.equal(other.read(rows)[camera], expected)


def test_only_whole_blocks_that_are_needed_are_computed(frames: Frames, features: Features) -> None:
    made = features(block=4)
    counted: list[int] = []

    made.ensure(np.array([9, 10]), counted.append)

    assert counted == [4, 4]  # one block, two cameras
    missing = FeatureFile(made.path(0, TOP)).missing()
    assert np.flatnonzero(~missing).tolist() == [8, 9, 10, 11] and len(missing) == frames.last[0] + 1
    assert sorted(path.name for path in made.folder.glob("*.features")) == sorted(
        path.name for path in (made.path(0, TOP), made.path(0, WRIST))
    )
    made.ensure(np.array([8, 11]), counted.append)
    assert counted == [4, 4]


def test_ahead_computes_all_at_once(frames: Frames, features: Features) -> None:
    made = features(ahead=True)

    assert made.work(np.arange(len(frames))).frames == 0
    assert all(path.exists() for path in made.paths())


def test_once_there_no_video_is_opened(
    own_data: tuple[Path, Manifest], features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The videos are overwritten with as many zeros, dated back: whoever opened one would fail."""
    frames = load(own_data)
    expected = features(frames, cache="prefix").read(ROWS)["kv"]
    tokens = features(frames).read(ROWS)[TOP]
    for video in (own_data[0] / "cubes").rglob("*.mp4"):
        stat = video.stat()
        with video.open("r+b") as stream:
            stream.write(bytes(stat.st_size))
        os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _opened.cache_clear()  # as in a new process
    again = load(own_data)

    assert torch.equal(features(again, cache="prefix").read(ROWS)["kv"], expected)
    assert torch.equal(features(again).read(ROWS)[TOP], tokens)
    assert again.images.nbytes == 0


def test_filling_keeps_no_image_in_memory(prepared: Path, features: Features) -> None:
    manifest = read_manifests(prepared)[0][0]
    frames = load_frames(manifest, prepared, manifest.held_out_episodes, 10**9)

    features(frames).read(np.arange(3))

    assert frames.images.fits and frames.images.nbytes == 0


def test_long_work_shows_its_progress(
    features: Features, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frames_module, "_LONG_WORK_PIXELS", 1)
    monkeypatch.setattr(frames_module, "_LARGE_BYTES", 1)
    made = features(block=8)
    count = made.work(ROWS).frames

    made.read(ROWS)

    said = capsys.readouterr().out
    assert "of features are kept in" in said and str(made.folder) in said and "free)" in said
    assert f"computing features: {count} of {count}" in said


# -- what they belong to -------------------------------------------------------------------------


def test_other_settings_are_other_features(features: Features) -> None:
    made = [features(), features(dtype="fp32"), features(cache="prefix")]

    assert len({one.folder for one in made}) == 3
    assert features(block=8).folder == made[0].folder
    assert not {*features(block=8).paths()} & {*made[0].paths()}
    assert features().paths() == made[0].paths()


def test_other_weights_are_another_backbone(
    features: Features, loaded: LoadedPolicy, vision_weight: torch.nn.Parameter
) -> None:
    before = features().read(ROWS)[TOP]
    folder = features().folder
    prefix = backbone_digest(loaded.policy, "prefix")
    vision_weight.mul_(1.5)

    assert features().folder != folder and backbone_digest(loaded.policy, "prefix") != prefix
    assert not torch.equal(features().read(ROWS)[TOP], before)
    vision_weight.div_(1.5)
    assert features().folder == folder


def test_language_model_matters_to_the_prefix_only(features: Features, loaded: LoadedPolicy) -> None:
    tokens, prefix = features().folder, features(cache="prefix").folder
    embedding = loaded.policy.model.vlm_with_expert.get_vlm_model().text_model.get_input_embeddings().weight
    with torch.no_grad():
        before = embedding[0, 0].clone()
        embedding[0, 0] += 1

        assert features().folder == tokens
        assert features(cache="prefix").folder != prefix
        embedding[0, 0] = before


def test_training_the_expert_changes_no_key(features: Features, loaded: LoadedPolicy) -> None:
    folder = features().folder
    with torch.no_grad():
        next(p for p in loaded.policy.parameters() if p.requires_grad).add_(1)

    assert features().folder == folder


def test_using_the_policy_changes_no_key(features: Features, loaded: LoadedPolicy, frames: Frames) -> None:
    """Tokenizers remember how they were last asked to pad."""
    before = features(cache="prefix").folder
    loaded.preprocess(frames.batch(ROWS, loaded.chunk))

    assert features(cache="prefix").folder == before


def test_other_image_size_is_another_backbone(
    features: Features, loaded: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = features()
    tokens = before.read(ROWS)[TOP]
    monkeypatch.setattr(loaded.policy.config, "resize_imgs_with_padding", (72, 72))
    after = features()

    assert after.folder != before.folder
    assert tokens.shape == (4, 16, 128) and after.read(ROWS)[TOP].shape == (4, 9, 128)


def test_other_instruction_is_another_prefix_but_the_same_tokens(frames: Frames, features: Features) -> None:
    told = replace(frames, sentences=("touch the blue cube",) * len(frames))

    assert features(told).paths() == features().paths()
    assert not {*features(told, cache="prefix").paths()} & {*features(cache="prefix").paths()}


def test_rerecorded_video_has_its_own_features(own_data: tuple[Path, Manifest], features: Features) -> None:
    """Only the top camera's video is exchanged, for the wrist's; numbers and times stay."""
    before = features(load(own_data))
    kept = before.read(ROWS)
    (top,), (wrist,) = ((own_data[0] / "cubes" / "videos" / camera).rglob("*.mp4") for camera in (TOP, WRIST))
    shutil.copy(wrist, top)

    after = features(load((own_data[0], anew(own_data[1], own_data[0]))))

    assert after.path(0, WRIST) == before.path(0, WRIST) and after.path(0, TOP) != before.path(0, TOP)
    assert torch.equal(after.read(ROWS)[TOP], kept[WRIST])


def test_block_follows_device_and_image_size() -> None:
    assert image_block(512 * 512, "cpu", 0) == 1
    assert image_block(96 * 96, "cpu", 0) == 28
    assert image_block(32 * 32, "cpu", 0) == 32
    assert image_block(512 * 512, "cuda", 0) == 32
    assert image_block(512 * 512, "cuda", 5) == 5


def test_folder_is_below_the_project_or_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZK0_FEATURES", raising=False)
    assert features_folder(Path("/p")) == Path("/p/.cache/features")
    monkeypatch.setenv("ZK0_FEATURES", "/fast/disk")
    assert features_folder(Path("/p")) == Path("/fast/disk")
    monkeypatch.setenv("ZK0_FEATURES", "fast")
    assert features_folder(Path("/p")) == Path("/p/fast")


# -- the regime ----------------------------------------------------------------------------------


def test_off_is_off(loaded: LoadedPolicy, frames: Frames, tmp_path: Path) -> None:
    assert features_for(loaded, frames, FeatureParams(cache="off"), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_features_while_the_vision_encoder_trains(
    loaded: LoadedPolicy,
    frames: Frames,
    tmp_path: Path,
    vision_weight: torch.nn.Parameter,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert regime(loaded.policy).tokens and regime(loaded.policy).prefix and not regime(loaded.policy).reason
    vision_weight.requires_grad_(True)
    features_package._say_once.cache_clear()

    for _ in range(2):
        assert features_for(loaded, frames, FeatureParams(), tmp_path) is None

    said = capsys.readouterr().out
    assert said == "features of frames are not kept: the vision encoder trains\n"
    assert not regime(loaded.policy).tokens


def test_tokens_stand_in_for_the_prefix_while_the_language_model_trains(
    loaded: LoadedPolicy, features: Features, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = next(loaded.policy.model.vlm_with_expert.get_vlm_model().text_model.parameters())
    weight.requires_grad_(True)
    features_package._say_once.cache_clear()
    try:
        made = features(cache="prefix")
        assert made.kind == "tokens" and made.folder == features().folder
        assert (regime(loaded.policy).tokens, regime(loaded.policy).prefix) == (True, False)
    finally:
        weight.requires_grad_(False)
    assert "image tokens are kept instead of keys and values: the language model trains" in capsys.readouterr().out


def test_policy_that_trains_whole_has_no_features(loaded: LoadedPolicy, frames: Frames, tmp_path: Path) -> None:
    vlm = Path(loaded.policy.config.vlm_model_name)
    whole = with_stats(build_nano(vlm, loaded.cameras, seed=0, frozen_backbone=False), {})

    assert features_for(whole, frames, FeatureParams(), tmp_path) is None
    assert regime(whole.policy).reason == "the vision encoder and the connector and the language model train"


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [-1, 32])
def test_row_that_is_none_of_the_frames(frames: Frames, features: Features, row: int) -> None:
    assert len(frames) == 32
    with pytest.raises(IndexError, match=f"row {row} is none of the 32 frames"):
        features().read(np.array([0, row]))


def test_features_of_another_episode_are_refused(features: Features) -> None:
    made = features()
    made.read(ROWS)
    made.path(0, WRIST).unlink()
    shutil.copy(made.path(0, TOP), made.path(0, WRIST))

    with pytest.raises(FeatureCacheError, match=rf"{made.path(0, WRIST).name} holds other features than its name says"):
        made.ensure(ROWS)


def test_features_of_another_shape_are_refused(frames: Frames, features: Features) -> None:
    made = features(block=8)
    path = made.path(0, TOP)
    create(path, Layout(path.stem, "tokens", (4, 128), "bf16", int(frames.last[0]) + 1, 8))

    with pytest.raises(
        FeatureCacheError, match=r"holds features of shape \(4, 128\), but the policy gives \(16, 128\)"
    ):
        made.read(ROWS)


def test_spoilt_file_is_refused_and_computed_again_once_deleted(features: Features) -> None:
    made = features(block=8)
    expected = made.read(ROWS)[TOP]
    path = made.path(0, TOP)
    content = bytearray(path.read_bytes())
    content[FeatureFile(path).layout.data_at + 11 * 16 * 128 * 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    made.ensure(ROWS)  # sees that the file was replaced; which frames are there, not whether they are sound

    with pytest.raises(FeatureCacheError, match=rf"{path.name} holds frame 11 with bytes that are not those written"):
        made.read(ROWS)
    path.unlink()
    made.ensure(ROWS)
    assert torch.equal(made.read(ROWS)[TOP], expected)


def test_features_that_are_not_finite_are_not_kept(features: Features, vision_weight: torch.nn.Parameter) -> None:
    vision_weight[3] = float("nan")
    made = features(block=8)

    with pytest.raises(FeatureCacheError, match=rf"not finite for {TOP}, episode \d, frame 8; .*check policy\.base"):
        made.read(ROWS[:1])
    assert FeatureFile(made.path(0, TOP)).missing().all()


def test_more_than_the_disk_holds_is_refused_before_anything_is_computed(
    loaded: LoadedPolicy, frames: Frames, features: Features
) -> None:
    """A recording of so many episodes that their features exceed any disk; only its length is made up."""
    made = features(cache="prefix")
    made._clips = tuple(replace(clip, length=10**12) for clip in made._clips)

    with pytest.raises(FeatureCacheError, match=r"features need .* TB in .*, but .* are free there"):
        made.ensure(ROWS)
    assert not made.folder.exists()
