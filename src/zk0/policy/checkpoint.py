"""Save and load a policy with its processors, in LeRobot's own format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import NormalizerProcessorStep
from safetensors.torch import load_file, save_file

from zk0.console import lerobot_quiet
from zk0.files import replaced_folder
from zk0.policy import portable
from zk0.policy.lora import merged

Stats = Mapping[str, Mapping[str, np.ndarray]]


@dataclass
class LoadedPolicy:
    """A policy and the two pipelines that belong to it."""

    policy: SmolVLAPolicy
    preprocess: Any
    postprocess: Any

    @property
    def chunk(self) -> int:
        """Actions the policy predicts at once."""
        return int(self.policy.config.chunk_size)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The image features it was built with."""
        return tuple(self.policy.config.image_features)


def with_stats(policy: SmolVLAPolicy, stats: Stats) -> LoadedPolicy:
    """Wrap a policy with processors that normalise by ``stats``.

    Args:
        policy: Any SmolVLA.
        stats: ``observation.state`` and ``action``, each with ``mean`` and ``std``.
    """
    tensors = {
        feature: {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
        for feature, values in stats.items()
    }
    preprocess, postprocess = make_pre_post_processors(policy.config, dataset_stats=tensors)
    return LoadedPolicy(policy, preprocess, postprocess)


def own_stats(loaded: LoadedPolicy) -> Stats:
    """By what its processors normalise now: feature to statistic to values; empty where they do not."""
    normalisers = [step for step in loaded.preprocess.steps if isinstance(step, NormalizerProcessorStep)]
    stats = normalisers[0].stats if normalisers else None
    return {f: {name: np.asarray(value) for name, value in s.items()} for f, s in (stats or {}).items()}


def save_checkpoint(loaded: LoadedPolicy, folder: Path, half: bool = False) -> None:
    """Write policy, processors and, where it is local, the VLM's own files; atomically.

    Low-rank adapters are folded into the weights they adapt: what is written is a plain SmolVLA.

    Args:
        loaded: What to save.
        folder: Replaced as a whole when everything is written.
        half: Store float32 weights as float16, for a checkpoint that is versioned with the code.
    """
    vlm = Path(loaded.policy.config.vlm_model_name)
    with replaced_folder(folder) as temporary:
        with merged(loaded.policy):
            loaded.policy.save_pretrained(temporary)
        loaded.preprocess.save_pretrained(temporary)
        loaded.postprocess.save_pretrained(temporary)
        if half:
            weights = temporary / "model.safetensors"
            tensors = load_file(weights)
            save_file({n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}, weights)
        if vlm.is_dir():
            shutil.copytree(vlm, temporary / portable.VLM_FOLDER)
            portable.name_bundled_vlm(temporary)


def load_checkpoint(path: str | Path, device: str = "cpu", revision: str | None = None) -> LoadedPolicy:
    """Load a checkpoint folder or Hub repository.

    Raises:
        FileNotFoundError: The path is neither a checkpoint folder nor a Hub id; says what is missing.
    """
    local = Path(path)
    if local.exists():
        missing = [n for n in ("config.json", "model.safetensors") if not (local / n).is_file()]
        if missing:
            raise FileNotFoundError(f"{local} is no policy checkpoint: {', '.join(missing)} not found in it")
    elif str(path).startswith((".", "/")) or str(path).count("/") != 1:
        raise FileNotFoundError(f"no policy checkpoint at {path}: the folder does not exist")
    with lerobot_quiet():
        policy = SmolVLAPolicy.from_pretrained(path, revision=revision)
    policy.config.device = device
    policy.to(device)
    preprocess, postprocess = make_pre_post_processors(
        policy.config,
        pretrained_path=str(path),
        pretrained_revision=revision,
        preprocessor_overrides={"device_processor": {"device": device}},
    )
    return LoadedPolicy(policy, preprocess, postprocess)
