"""Save and load a policy with its processors, in LeRobot's own format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import httpx
import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline
from lerobot.processor.converters import (
    batch_to_transition,
    policy_action_to_transition,
    transition_to_batch,
    transition_to_policy_action,
)
from safetensors.torch import load_file, save_file

from zk0.checkpoints import Checkpoint, CheckpointError, Pipeline, read_checkpoint
from zk0.checkpoints.folder import shown
from zk0.checkpoints.settings import VLM_FOLDER
from zk0.console import lerobot_quiet
from zk0.files import replaced_folder
from zk0.hub import HubError, how_to_fetch, why_unreachable
from zk0.policy import portable
from zk0.policy.lora import merged

FULL_VLM = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"

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
            shutil.copytree(vlm, temporary / VLM_FOLDER)
            portable.name_bundled_vlm(temporary)


def load_checkpoint(path: str | Path, device: str = "cpu") -> LoadedPolicy:
    """Load a checkpoint folder, of which LeRobot gets what was read as data.

    Settings, steps and statistics are handed over as they were checked, whatever the files hold by then. transformers
    reads the vision-language model's folder itself, and never runs code of one.

    Args:
        path: The folder.
        device: Where the policy computes.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks settings or weights; says which.
        CheckpointError: See :func:`zk0.checkpoints.read_checkpoint`; or LeRobot cannot build a policy of it, or
            weights are not finite.
        HubError: It names a vision-language model of the Hub, which cannot be had.
    """
    found = read_checkpoint(Path(path))
    try:
        with lerobot_quiet():
            policy = SmolVLAPolicy.from_pretrained(found.folder, config=_config(found, device))
            preprocess, postprocess = _pipelines(found, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what of a stranger's settings no check foresaw, LeRobot meets in its own ways
        if found.vlm is None and isinstance(error, (OSError, httpx.HTTPError)):
            raise _absent_vlm(path, found, error) from error
        reason = shown((str(error).strip() or "no reason given").splitlines()[0], quoted=False)
        raise CheckpointError(
            f"{path} is refused: LeRobot makes no policy of it ({type(error).__name__}: {reason}). Use another"
        ) from error
    _check_finite(path, policy)
    return LoadedPolicy(policy.to(device), preprocess, postprocess)


def _absent_vlm(path: str | Path, found: Checkpoint, error: Exception) -> HubError:
    named = found.settings.vlm_model_name
    return HubError(
        f"{path} needs {named}, which is not in the local Hub cache, and {why_unreachable(error)}. "
        f"{how_to_fetch(named, 'model', 'main')}"
    )


def _config(found: Checkpoint, device: str) -> SmolVLAConfig:
    settings = found.settings.model_dump(mode="json", exclude_unset=True, exclude={"type"}) | {"pretrained_path": None}
    if found.vlm is not None:
        settings["vlm_model_name"] = str(found.vlm)
    return draccus.decode(SmolVLAConfig, settings | {"device": device})


def _pipelines(found: Checkpoint, device: str) -> tuple[Any, Any]:
    before = {"device_processor": {"device": device}}
    if found.vlm is not None:
        before["tokenizer_processor"] = {"tokenizer_name": str(found.vlm)}
    return (
        PolicyProcessorPipeline[dict[str, Any], dict[str, Any]].from_config(
            found.preprocessor.config,
            state_dict=_tensors(found.preprocessor),
            overrides=before,
            to_transition=batch_to_transition,
            to_output=transition_to_batch,
        ),
        PolicyProcessorPipeline[torch.Tensor, torch.Tensor].from_config(
            found.postprocessor.config,
            state_dict=_tensors(found.postprocessor),
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )


def _tensors(pipeline: Pipeline) -> dict[str, dict[str, torch.Tensor]]:
    return {
        file: {name: torch.as_tensor(value) for name, value in values.items()}
        for file, values in pipeline.state.items()
    }


def _check_finite(path: str | Path, policy: SmolVLAPolicy) -> None:
    for name, tensor in policy.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path} is refused: model.safetensors, {name}: numbers that are not finite; expected weights that "
                "are. A run that diverged leaves such: use another, or an earlier one"
            )
