"""Whether the machine is large enough: device, threads, memory and disk."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil

from zk0.checks import Check
from zk0.machine.hardware import GIB
from zk0.machine.packages import installed
from zk0.params import Params
from zk0.sources_lock import base_folder, starting_policy

# Rough needs, on the large side. torch, lerobot and MuJoCo loaded:
_PROCESS_BYTES = 2 * GIB
# A demonstration of the embedded arm: 40 frames at most, from two cameras of 96 x 96.
_DECODED_EPISODE_BYTES = 40 * 2 * 96 * 96 * 3
_RECORDED_EPISODE_BYTES = 400_000
# Not known before it is downloaded: one dataset of the Hub, and the full policy in float32.
_HUB_DATASET_BYTES = 2 * GIB
_POLICY_BYTES = {"random:nano": 8_000_000, "random:full": 1_800_000_000, "hub": 1_800_000_000}
# Weights, gradients and moments in memory; best, last, resumable and MLflow's copies on disk.
_POLICIES_IN_MEMORY, _POLICIES_ON_DISK = 4, 8
_RESERVE_BYTES = GIB  # results, videos, tracking


def needed_bytes(params: Params, root: Path) -> tuple[int, int]:
    """Estimate the memory and disk that a run needs, in bytes; on the large side."""
    sources = [*params.data.sites.values(), *params.data.unseen.values()]
    simulated = sum(source.startswith("sim:") for source in sources)
    limit = params.data.decoded_limit_bytes
    recorded = min(params.data.episodes * _DECODED_EPISODE_BYTES, limit)
    parts = 1 if params.data.partition.scheme == "none" else params.data.partition.sites
    policy = _policy_bytes(starting_policy(params), params, root)
    memory = _PROCESS_BYTES + _POLICIES_IN_MEMORY * policy
    memory += simulated * recorded + (len(sources) - simulated) * parts * limit
    # Twice, since DVC keeps a copy of what a stage wrote.
    disk = 2 * simulated * params.data.episodes * _RECORDED_EPISODE_BYTES
    disk += sum(source.startswith("hub:") for source in sources) * _HUB_DATASET_BYTES
    return memory, disk + _POLICIES_ON_DISK * policy + _RESERVE_BYTES


def _policy_bytes(base: str, params: Params, root: Path) -> int:
    """Size of a starting policy; 0 where it is not there, which resolving it complains of."""
    if base in _POLICY_BYTES:
        return _POLICY_BYTES[base]
    try:
        folder = base_folder(base, params.tracking.model, root)
    except ValueError:
        return 0
    if folder is None:
        return _POLICY_BYTES["hub"]
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def check_device(params: Params, gpus: list[dict[str, Any]]) -> Check:
    """Whether the device that params name is here, and torch was built for it."""
    wanted = params.policy.device
    is_mac = platform.system() == "Darwin" and platform.machine() == "arm64"
    cpu_build = (installed("torch") or "").endswith("+cpu")
    cuda = bool(gpus) and not cpu_build
    found = ", ".join(gpu["name"] for gpu in gpus) or ("Apple GPU" if is_mac else "no GPU")
    if gpus and cpu_build:
        found += ", but torch is a build without CUDA"
    satisfied = {"cpu": True, "auto": True, "cuda": cuda, "mps": is_mac}[wanted]
    advice = "set policy.device to cpu or auto, or use a machine that has it (CUDA: see `nvidia-smi`)"
    return Check("device", satisfied, found, f"policy.device {wanted}", advice)


def check_threads(params: Params, cores: int) -> Check:
    """Whether there is a core for every thread."""
    return Check(
        "threads",
        params.threads <= cores,
        f"{cores} cores",
        f"at least threads {params.threads}",
        f"set threads to {cores}: more than there are cores makes training slower",
        "warning",
    )


def check_memory(params: Params, root: Path, total: int) -> Check:
    """Too little free memory is a warning, since it may be freed; too little altogether is an error."""
    need, free = needed_bytes(params, root)[0], min(psutil.virtual_memory().available, total)
    return Check(
        "memory",
        need <= free,
        f"{_size(free)} free of {_size(total)}",
        f"about {_size(need)}",
        "close other programs, or lower data.decoded_limit_bytes or data.episodes",
        "error" if need > total else "warning",
    )


def check_disk(params: Params, root: Path, free: int) -> Check:
    """Whether what a run writes fits."""
    need = needed_bytes(params, root)[1]
    return Check(
        "disk",
        need <= free,
        f"{_size(free)} free",
        f"about {_size(need)}",
        "free some space, or lower data.episodes; `dvc gc --workspace` drops old versions of data",
    )


def _size(count: int) -> str:
    return f"{count / GIB:,.1f} GiB"
