"""zk0's local training with the clock on it: the very function a site trains with, from its kept features."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

from benchmarks.local_training import OwnSteps
from benchmarks.projects import params_of
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.federation.statistics import moments_of
from zk0.measuring.timing import peak_bytes, seconds_of
from zk0.params import FeatureParams
from zk0.policy.checkpoint import with_stats
from zk0.policy.features import features_for
from zk0.policy.start import load_start
from zk0.policy.trainable import trainable_tensors
from zk0.training.local import LocalTask, rows_drawn, train_locally


def own_steps(
    *,
    root: str,
    folder: str,
    cold: bool,
    cache: Literal["off", "tokens", "prefix"],
    batch: int,
    steps: int,
    repeats: int,
    device: str,
    precision: str,
    threads: int,
) -> OwnSteps:
    """Train for some steps, several times the same ones, and so on the same frames.

    Args:
        root: A prepared project; its first site's training frames are used.
        folder: Where features are kept.
        cold: Forget what is kept there first.
        cache: What is kept.
        batch: Frames a step.
        steps: Optimiser steps of one local training.
        repeats: Local trainings that count; one before them warms up.
        device: cpu or cuda.
        precision: fp32 or bf16.
        threads: Threads of this process.
    """
    torch.set_num_threads(threads)
    if cold:
        shutil.rmtree(folder, ignore_errors=True)
    params = params_of(root)
    site = read_manifests(Path(root))[0][0]
    frames = load_frames(site, Path(root), site.train_episodes, params.data.decoded_limit_bytes)
    policy = load_start(Path(root), params.policy.base, device).policy
    loaded = with_stats(policy, moments_of(frames).normalisation())
    features = features_for(loaded, frames, FeatureParams(cache=cache), Path(folder))
    training = params.training.model_copy(update={"local_steps": steps, "batch": batch, "precision": precision})
    task = LocalTask(params.seed, 0, 1, training, params.decay_steps)
    rows = np.unique(np.concatenate(rows_drawn(task, len(frames))))
    before, began = _bytes(Path(folder)), time.perf_counter()
    if features is not None:
        features.ensure(rows)
    build_s = time.perf_counter() - began
    start = trainable_tensors(loaded.policy)

    def train(_: int) -> None:
        train_locally(loaded, frames, start, task, features)
        if device == "cuda":
            torch.cuda.synchronize()

    seconds = seconds_of(train, repeats, warm_up=1)
    return {
        "step_s": [value / steps for value in seconds],
        "build_s": build_s,
        "frames": len(rows),
        "bytes_frame": (_bytes(Path(folder)) - before) / len(rows),
        "peak_bytes": peak_bytes(),
    }


def smolvla_settings(*, root: str) -> dict[str, object]:
    """How LeRobot builds a policy of the same size as a project's starting policy: arguments of SmolVLAConfig.

    The folder of a random policy's VLM goes when this process ends, so the project keeps it for the peer's.
    """
    base = params_of(root).policy.base
    config = load_start(Path(root), base, "cpu").policy.config
    if base.startswith("random:"):
        config.vlm_model_name = str(
            shutil.copytree(config.vlm_model_name, Path(root).resolve() / "vlm", dirs_exist_ok=True)
        )
    names = (
        "vlm_model_name",
        "load_vlm_weights",
        "chunk_size",
        "n_action_steps",
        "max_state_dim",
        "max_action_dim",
        "resize_imgs_with_padding",
        "tokenizer_max_length",
        "num_steps",
        "freeze_vision_encoder",
        "train_expert_only",
        "num_vlm_layers",
        "num_expert_layers",
        "self_attn_every_n_layers",
        "expert_width_multiplier",
        "attention_mode",
    )
    default = SmolVLAConfig(device="cpu")
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(default, name)}


def trainable_shapes(*, base: str, rank: int) -> dict[str, list[int]]:
    """Names and shapes of what a policy trains, in its order; with low-rank adapters where ``rank`` is above 0."""
    policy = load_start(Path(), base, "cpu", lora_rank=rank).policy
    return {name: list(p.shape) for name, p in policy.named_parameters() if p.requires_grad}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
