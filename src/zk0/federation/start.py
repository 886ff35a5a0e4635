"""What a run begins from: the starting policy as it was resolved, and a start that is drawn back from it."""

from __future__ import annotations

from pathlib import Path

import torch

from zk0.federation.protocol import Adapters
from zk0.federation.server import FederationError
from zk0.federation.site import Warm, warm_policy
from zk0.params import Params
from zk0.policy.start import load_start
from zk0.policy.trainable import TensorMismatch, Tensors, check_alike, trainable_tensors
from zk0.sources import LockEntry, Shrink, read_lock


def locked_base(root: Path) -> tuple[str, str]:
    """Starting policy and its digest from ``sources.lock.json``, as it was when it was resolved.

    A branch of the Hub is the commit that it stood for then, a registered model the folder of its version.

    Raises:
        StageError: It has not been resolved.
    """
    return _as_locked(read_lock(root, "policy")["policy"])


def locked_shrink(root: Path) -> Shrink | None:
    """How far from its starting policy a run begins, from ``sources.lock.json``; None = at it.

    Raises:
        StageError: It has not been resolved.
    """
    return read_lock(root, "policy")["policy"].get("shrink")


def warm_start(root: Path, params: Params, base: str) -> Warm:
    """The starting policy as the rounds will want it; loaded once in a process, where sites may share it."""
    adapters = Adapters(rank=params.policy.lora_rank, alpha=params.policy.lora_alpha)
    device = params.policy.device if params.engine.name == "inprocess" else "cpu"
    warm = warm_policy(root, base, device, adapters, params.seed if adapters.rank else 0)
    warm.set_denoising(params.policy.denoising_steps)
    return warm


def drawn_back(root: Path, params: Params, first: Tensors, shrink: Shrink) -> Tensors:
    """A starting policy's tensors, part of the way back to those of another.

    Training that begins at the optimum of yesterday's data generalises worse than one that begins near it, and forgets
    what nobody trains on any more: Ash and Adams, "On Warm-Starting Neural Network Training", NeurIPS 2020, whose
    shrinking towards zero is here one towards the pretrained policy, without their noise.

    Raises:
        FederationError: The two policies do not train the same tensors.
    """
    source, _ = _as_locked(shrink["to"])
    behind = load_start(root, source, "cpu", params.policy.lora_rank, params.policy.lora_alpha, params.seed)
    older, kept = trainable_tensors(behind.policy), shrink["kept"]
    try:
        check_alike(first, older)
    except TensorMismatch as error:
        raise FederationError(
            f"policy.warm_start is {kept:g}, but the starting policy is no further training of policy.base {source}: "
            f"{error}. Set policy.warm_start to 1 to begin at it"
        ) from error
    return {name: torch.lerp(older[name], tensor, kept) for name, tensor in first.items()}


def _as_locked(policy: LockEntry) -> tuple[str, str]:
    source, digest = str(policy["source"]), str(policy["digest"])
    if source.startswith("hub:"):
        source = f"{source.partition('@')[0]}@{digest}"
    return policy.get("folder", source), digest
