"""Checkpoints: LeRobot's format, loadable from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import zk0
from zk0.data.frames import Frames
from zk0.digests import digest_file, digest_folder
from zk0.files import read_json
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, save_checkpoint
from zk0.policy.portable import bundled_vlm
from zk0.policy.start import load_start, resolve_device
from zk0.policy.trainable import digest_tensors, trainable_tensors

ROOT = Path(__file__).parents[2]

# What a robot owner does who knows LeRobot and has installed zk0.
ELSEWHERE = """
import sys
import torch
import zk0.policy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

torch.set_num_threads(1)
folder, batch, out = sys.argv[1:]
policy = SmolVLAPolicy.from_pretrained(folder).eval()
before, after = make_pre_post_processors(policy.config, pretrained_path=folder)
given = torch.load(batch)
actions = policy.predict_action_chunk(before(given["batch"]), noise=given["noise"])
torch.save({"actions": after(actions), "vlm": policy.config.vlm_model_name}, out)
"""


def actions(loaded: LoadedPolicy, frames: Frames) -> torch.Tensor:
    """Chunks for two frames, seen with the policy's own eyes."""
    noise = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1))
    batch = loaded.preprocess(frames.batch(np.arange(2), loaded.chunk))
    return torch.as_tensor(loaded.postprocess(loaded.policy.predict_action_chunk(batch, noise=noise)))


@pytest.fixture(scope="module")
def saved(_untrained: tuple[LoadedPolicy, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(_untrained[0], folder)
    return folder


def test_checkpoint_is_lerobots_and_carries_its_vlm(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}

    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"} <= names
    assert read_json(saved / "config.json")["vlm_model_name"] == "vlm"
    assert bundled_vlm(saved) == saved / "vlm"
    assert (saved / "vlm" / "tokenizer.json").is_file()
    texts = [path.read_text() for path in saved.rglob("*.json")]
    assert not any("/tmp" in text or str(Path.home()) in text for text in texts)


def test_loaded_policy_is_the_one_that_was_saved(saved: Path, loaded: LoadedPolicy, frames: Frames) -> None:
    again = load_checkpoint(saved)

    assert digest_tensors(trainable_tensors(again.policy)) == digest_tensors(trainable_tensors(loaded.policy))
    assert (again.chunk, again.cameras) == (8, ("observation.images.top", "observation.images.wrist"))
    assert torch.equal(actions(again, frames), actions(loaded, frames))


def test_what_was_loaded_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(load_checkpoint(saved), tmp_path / "again")

    for part in ("model.safetensors", "policy_preprocessor_step_5_normalizer_processor.safetensors"):
        assert digest_file(tmp_path / "again" / part) == digest_file(saved / part)
    assert digest_folder(tmp_path / "again" / "vlm") == digest_folder(saved / "vlm")


def test_moved_checkpoint_loads_in_another_process(
    saved: Path, tmp_path: Path, loaded: LoadedPolicy, frames: Frames
) -> None:
    moved, elsewhere = tmp_path / "far" / "away", tmp_path / "elsewhere"
    shutil.copytree(saved, moved)
    elsewhere.mkdir()
    batch = frames.batch(np.arange(2), loaded.chunk)
    noise = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1))
    torch.save({"batch": batch, "noise": noise}, tmp_path / "batch.pt")
    env = {**os.environ, "PYTHONPATH": str(Path(zk0.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}

    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(moved), str(tmp_path / "batch.pt"), str(tmp_path / "out.pt")],
        cwd=elsewhere,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "out.pt")
    assert result["vlm"] == str(moved / "vlm")
    torch.testing.assert_close(result["actions"], actions(loaded, frames))


def test_half_precision_halves_the_file_and_little_else(
    saved: Path, tmp_path: Path, loaded: LoadedPolicy, frames: Frames
) -> None:
    save_checkpoint(loaded, tmp_path / "half", half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    again = load_checkpoint(tmp_path / "half")

    assert not any(tensor.dtype == torch.float32 for tensor in stored.values())
    size, full = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", saved))
    assert size < 0.55 * full
    assert all(p.dtype == torch.float32 for p in again.policy.parameters())
    torch.testing.assert_close(actions(again, frames), actions(loaded, frames), atol=0.5, rtol=0)


def test_normalisation_travels_with_the_policy(saved: Path, frames: Frames) -> None:
    batch = load_checkpoint(saved).preprocess(frames.batch(np.arange(len(frames)), 1, with_images=False))
    state = batch["observation.state"]

    torch.testing.assert_close(state.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(state.std(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("missing", "said"),
    [(["model.safetensors"], "model.safetensors not found"), (["config.json", "model.safetensors"], "config.json, m")],
)
def test_folder_that_is_no_checkpoint_says_what_is_missing(
    saved: Path, tmp_path: Path, missing: list[str], said: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder, ignore=shutil.ignore_patterns(*missing))

    with pytest.raises(FileNotFoundError, match=f"{folder} is no policy checkpoint: {said}"):
        load_checkpoint(folder)


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "nowhere"])
def test_folder_that_is_not_there_is_not_looked_for_on_the_hub(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no policy checkpoint at {Path(path)}: the folder does not exist"):
        load_checkpoint(path)


def test_relative_base_is_below_the_project(saved: Path) -> None:
    assert load_start(saved.parent, "checkpoint", "cpu").chunk == 8
    with pytest.raises(FileNotFoundError, match=r"no policy checkpoint at .*/elsewhere"):
        load_start(saved.parent, "elsewhere", "cpu")


def test_unknown_random_base_is_refused() -> None:
    with pytest.raises(ValueError, match="random:huge is unknown; random:nano and random:full are"):
        load_start(Path(), "random:huge", "cpu")


def test_random_base_is_the_same_each_time(loaded: LoadedPolicy) -> None:
    again = load_start(Path(), "random:nano", "cpu")

    assert digest_tensors(dict(again.policy.state_dict())) == digest_tensors(dict(loaded.policy.state_dict()))


def test_embedded_base_loads_and_is_small() -> None:
    base = load_start(ROOT, "models/nano-base", "auto" if not torch.cuda.is_available() else "cpu")

    assert sum(p.numel() for p in base.policy.parameters()) < 5_000_000
    assert not base.policy.training
    assert base.cameras == ("observation.images.top", "observation.images.wrist")


def test_device_that_is_named_is_taken() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cuda", "mps", "cpu")
