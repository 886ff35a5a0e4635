"""The policy a run starts from, as params name it: loaded, or built anew at embedded or full size."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from zk0.console import lerobot_quiet
from zk0.data.frames import ACTION, STATE
from zk0.hub import HubError, fetch_policy
from zk0.policy import embedded
from zk0.policy.checkpoint import FULL_VLM, LoadedPolicy, load_checkpoint, with_stats
from zk0.policy.lora import add_adapters
from zk0.seeding import seeded
from zk0.sources import Source

GPU_SHARE = "ZK0_GPU_SHARE"
CAMERAS = ("observation.images.top", "observation.images.wrist")
_UNIT = {"mean": [0.0] * 6, "std": [1.0] * 6}


def resolve_device(device: str) -> str:
    """``auto`` becomes cuda, mps or cpu, whichever is there; of a GPU's memory ``ZK0_GPU_SHARE`` may be taken."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda":
        _keep_to_share()
    return device


@cache
def _keep_to_share() -> None:
    """Take no more of the GPU's memory than was allocated to this process, where others run beside it."""
    if share := os.environ.get(GPU_SHARE):
        torch.cuda.set_per_process_memory_fraction(float(share))


def _features(
    state: int, action: int, cameras: Mapping[str, tuple[int, int, int]]
) -> tuple[dict[str, PolicyFeature], dict[str, PolicyFeature]]:
    inputs = {STATE: PolicyFeature(FeatureType.STATE, (state,))}
    inputs |= {name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in cameras.items()}
    return inputs, {ACTION: PolicyFeature(FeatureType.ACTION, (action,))}


def build_nano(vlm: Path, cameras: tuple[str, ...], seed: int, frozen_backbone: bool = True) -> SmolVLAPolicy:
    """A new SmolVLA of about 2 M parameters.

    Args:
        vlm: Folder written by :func:`zk0.policy.embedded.write_vlm`.
        cameras: Image features, each 96 x 96.
        seed: Decides the initial weights.
        frozen_backbone: SmolVLA's fine-tuning default: only the action expert and the state
            projection train. False trains everything, as when the base is pretrained.
    """
    size = embedded.IMAGE_SIZE
    inputs, outputs = _features(6, 6, dict.fromkeys(cameras, (3, size, size)))
    config = SmolVLAConfig(
        vlm_model_name=str(vlm),
        load_vlm_weights=False,
        input_features=inputs,
        output_features=outputs,
        chunk_size=embedded.CHUNK,
        n_action_steps=embedded.CHUNK,
        max_state_dim=6,
        max_action_dim=6,
        resize_imgs_with_padding=(size, size),
        num_vlm_layers=4,
        tokenizer_max_length=24,
        num_steps=5,
        freeze_vision_encoder=frozen_backbone,
        train_expert_only=frozen_backbone,
        push_to_hub=False,
        device="cpu",
    )
    with seeded(seed), lerobot_quiet():
        return SmolVLAPolicy(config)


def build_full(
    state: int, action: int, cameras: Mapping[str, tuple[int, int, int]], seed: int, vlm: str = FULL_VLM
) -> SmolVLAPolicy:
    """The 450 M SmolVLA with random weights; for measuring, since the pretrained one is on the Hub.

    Args:
        state: Size of the state.
        action: Size of an action.
        cameras: Image features and their (3, H, W).
        seed: Decides the weights.
        vlm: Hub id or folder of the VLM's configuration and processor.
    """
    inputs, outputs = _features(state, action, cameras)
    config = SmolVLAConfig(
        vlm_model_name=vlm, load_vlm_weights=False, input_features=inputs, output_features=outputs, device="cpu"
    )
    with seeded(seed), lerobot_quiet():
        return SmolVLAPolicy(config)


def load_start(
    root: Path, base: str, device: str, lora_rank: int = 0, lora_alpha: float = 32.0, seed: int = 0
) -> LoadedPolicy:
    """Load or build the starting policy.

    Args:
        root: Project folder; relative checkpoint paths start there.
        base: As ``sources.lock.json`` resolved it: a checkpoint folder, ``hub:OWNER/NAME@COMMIT``, ``random:nano`` or
            ``random:full``.
        device: cpu, cuda, mps or auto.
        lora_rank: Train low-rank adapters of this rank instead of the whole expert (0 = the expert).
        lora_alpha: Their scale is ``lora_alpha / lora_rank``.
        seed: Of the adapters' frozen half; the run's, so that all sites draw the same.

    Raises:
        FileNotFoundError: No checkpoint there; says what is missing.
        CheckpointError: It holds something else than a SmolVLA's data.
        ValueError: ``random:`` with something unknown behind it, or a rank that does not fit.
    """
    device = resolve_device(device)
    if base.startswith("hub:"):
        source = Source.parse(base)
        loaded = _from_hub(source.name, source.revision or "main", device)
    elif base.startswith("mlflow:"):
        raise ValueError(f"{base} stands for a folder that `zk0 validate` writes into sources.lock.json; run it first")
    elif base.startswith("random:"):
        loaded = _random(base.removeprefix("random:"))
        loaded.policy.to(device)
    else:
        loaded = load_checkpoint(root / base, device)
    if lora_rank:
        add_adapters(loaded.policy, lora_rank, lora_alpha, seed)
    loaded.policy.eval()
    return loaded


def _from_hub(repository: str, revision: str, device: str) -> LoadedPolicy:
    """A policy of the Hub, from the local cache where it is there.

    Its vision-language model is on the Hub as well, unless the checkpoint carries it.
    """
    folder = fetch_policy(repository, revision)
    if missing := [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]:
        raise HubError(f"hub:{repository}@{revision} is no policy checkpoint: {', '.join(missing)} not found in it")
    return load_checkpoint(folder, device)


def _random(size: str) -> LoadedPolicy:
    stats = {f: {k: np.array(v) for k, v in _UNIT.items()} for f in ("observation.state", "action")}
    if size == "nano":
        return with_stats(build_nano(_vlm(embedded.NANO), CAMERAS, seed=0), stats)
    if size == "full":
        cameras = dict.fromkeys(CAMERAS, (3, 480, 640))
        return with_stats(build_full(6, 6, cameras, seed=0, vlm=str(_vlm(embedded.FULL))), stats)
    raise ValueError(f"random:{size} is unknown; random:nano and random:full are")


@cache
def _vlm(shape: embedded.VlmShape) -> Path:
    """A folder to build from without a network, for the life of the process."""
    folder = Path(tempfile.mkdtemp(prefix="zk0-vlm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    embedded.write_vlm(folder, shape)
    return folder
