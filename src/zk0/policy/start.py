"""The policy a run starts from, as params name it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch

from zk0.hub import HubError, fetch_policy
from zk0.policy import embedded
from zk0.policy.build import build_full, build_nano
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, with_stats
from zk0.policy.lora import add_adapters
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
    import numpy as np

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
