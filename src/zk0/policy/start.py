"""The policy a run starts from, as params name it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from zk0.policy import nano
from zk0.policy.build import build_full, build_nano
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, with_stats
from zk0.policy.lora import add_adapters
from zk0.sources import Source

CAMERAS = ("observation.images.top", "observation.images.wrist")
_UNIT = {"mean": [0.0] * 6, "std": [1.0] * 6}


def resolve_device(device: str) -> str:
    """``auto`` becomes cuda, mps or cpu, whichever is there."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_start(
    root: Path, base: str, device: str, lora_rank: int = 0, lora_alpha: float = 32.0, seed: int = 0
) -> LoadedPolicy:
    """Load or build the starting policy.

    Args:
        root: Project folder; relative checkpoint paths start there.
        base: A checkpoint folder, ``hub:OWNER/NAME@REVISION``, ``random:nano`` or ``random:full``.
        device: cpu, cuda, mps or auto.
        lora_rank: Train low-rank adapters of this rank instead of the whole expert (0 = the expert).
        lora_alpha: Their scale is ``lora_alpha / lora_rank``.
        seed: Of the adapters' frozen half; the run's, so that all sites draw the same.

    Raises:
        FileNotFoundError: No checkpoint there; says what is missing.
        ValueError: ``random:`` with something unknown behind it, or a rank that does not fit.
    """
    device = resolve_device(device)
    if base.startswith("hub:"):
        source = Source.parse(base)
        loaded = load_checkpoint(source.name, device, source.revision)
    elif base.startswith("random:"):
        loaded = _random(base.removeprefix("random:"))
        loaded.policy.to(device)
    else:
        loaded = load_checkpoint(root / base, device)
    if lora_rank:
        add_adapters(loaded.policy, lora_rank, lora_alpha, seed)
    loaded.policy.eval()
    return loaded


def _random(size: str) -> LoadedPolicy:
    import numpy as np

    stats = {f: {k: np.array(v) for k, v in _UNIT.items()} for f in ("observation.state", "action")}
    if size == "nano":
        return with_stats(build_nano(_vlm(nano.NANO), CAMERAS, seed=0), stats)
    if size == "full":
        cameras = dict.fromkeys(CAMERAS, (3, 480, 640))
        return with_stats(build_full(6, 6, cameras, seed=0, vlm=str(_vlm(nano.FULL))), stats)
    raise ValueError(f"random:{size} is unknown; random:nano and random:full are")


@cache
def _vlm(shape: nano.VlmShape) -> Path:
    """A folder to build from without a network, for the life of the process."""
    from zk0.policy.pretrain import corpus

    folder = Path(tempfile.mkdtemp(prefix="zk0-vlm-"))
    nano.write_vlm(folder, corpus(), shape)
    return folder
