"""Whether the machine is large enough: device, threads, memory and disk; the one estimate of what a run needs.

What a federation's server needs besides is reckoned from the same figures, in :mod:`zk0.operations.resources`.
"""

from __future__ import annotations

import json
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from zk0.checks import Check
from zk0.machine import GIB, Gpu
from zk0.machine.packages import installed
from zk0.params import Params
from zk0.sources_lock import base_folder, starting_policy

# Rough needs, on the large side. torch, lerobot and MuJoCo loaded:
PROCESS_BYTES = 2 * GIB
# A demonstration of the embedded arm: 40 frames at most, from two cameras of 96 x 96.
SIM_FRAMES_AN_EPISODE = 40
_DECODED_EPISODE_BYTES = SIM_FRAMES_AN_EPISODE * 2 * 96 * 96 * 3
_RECORDED_EPISODE_BYTES = 400_000
# Not known before it is downloaded: one dataset of the Hub, and the full policy in float32.
_HUB_DATASET_BYTES = 2 * GIB
_POLICY_BYTES = {"random:nano": 8_000_000, "random:full": 1_800_000_000, "hub": 1_800_000_000}
# What of it trains: of smolvla_base, in float32.
TRAINABLE_SMALL_BYTES, _TRAINABLE_BYTES = 2_000_000, 400_000_000
_FROZEN = "vlm_with_expert.vlm."
# Weights, gradients and moments in memory; best, last, resumable and MLflow's copies on disk.
_POLICIES_IN_MEMORY, _POLICIES_ON_DISK = 4, 8
_RESERVE_BYTES = GIB  # results, videos, tracking


@dataclass(frozen=True)
class Need:
    """One resource: what is wanted, and what there is.

    Attributes:
        name: ``memory``, ``disk`` or ``GPU memory``.
        parts: What it is wanted for, in bytes, a reserve included.
        available_bytes: There now.
        advice: What to do where it does not fit.
    """

    name: str
    parts: dict[str, int]
    available_bytes: int
    advice: str

    @property
    def needed_bytes(self) -> int:
        """All parts together, in bytes."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is as much as is needed."""
        return self.needed_bytes <= self.available_bytes

    def told(self) -> str:
        """The figures as a sentence."""
        parts = ", ".join(f"{name} {size(part)}" for name, part in self.parts.items() if part)
        return f"{self.name}: {size(self.needed_bytes)} of {size(self.available_bytes)} ({parts})"

    def as_dict(self) -> dict[str, object]:
        """As results/deployment.json keeps it."""
        figures = {"needed_bytes": self.needed_bytes, "available_bytes": self.available_bytes, "parts": self.parts}
        return {"name": self.name, **figures, "advice": self.advice, "fits": self.fits}


def memory_need(params: Params, root: Path, available: int) -> Need:
    """Memory that a run takes on one machine, on the large side."""
    sources = _sources(params)
    limit = params.data.decoded_limit_bytes
    recorded = min(params.data.episodes * _DECODED_EPISODE_BYTES, limit)
    partitions = 1 if params.data.partition.scheme == "none" else params.data.partition.sites
    simulated, processes = simulated_sources(params), params.policy.processes
    parts = {
        "libraries": processes * PROCESS_BYTES,
        "policies": processes * _POLICIES_IN_MEMORY * policy_bytes(params, root),
        "decoded recordings": simulated * recorded + (len(sources) - simulated) * partitions * limit,
    }
    return Need("memory", parts, available, "close other programs, or lower data.decoded_limit_bytes or data.episodes")


def disk_need(params: Params, root: Path, available: int) -> Need:
    """Disk that a run takes on one machine, on the large side."""
    parts = {
        # Twice, since DVC keeps a copy of what a stage wrote.
        "recordings": 2 * simulated_sources(params) * params.data.episodes * _RECORDED_EPISODE_BYTES,
        "downloads": sum(source.startswith("hub:") for source in _sources(params)) * _HUB_DATASET_BYTES,
        "checkpoints": _POLICIES_ON_DISK * policy_bytes(params, root),
        "results": _RESERVE_BYTES,
    }
    advice = "free some space, or lower data.episodes; `dvc gc --workspace` drops old versions of data"
    return Need("disk", parts, available, advice)


def simulated_sources(params: Params) -> int:
    """How many sources are recorded with the simulated arm."""
    return sum(source.startswith("sim:") for source in _sources(params))


def policy_bytes(params: Params, root: Path, base: str | None = None) -> int:
    """Size of the starting policy, or of another; 0 where it is not there, which resolving it complains of."""
    base = base or starting_policy(params)
    if base in _POLICY_BYTES:
        return _POLICY_BYTES[base]
    try:
        folder = base_folder(base, params.tracking.model, root)
    except ValueError:
        return 0
    if folder is None:
        return _POLICY_BYTES["hub"]
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def trainable_bytes(root: Path, params: Params) -> int:
    """Bytes of the tensors that train, by the header of the starting policy's file; a site's update has as many."""
    base = starting_policy(params)
    if base == "random:nano":
        return TRAINABLE_SMALL_BYTES
    try:
        folder = base_folder(base, params.tracking.model, root)
    except ValueError:
        folder = None
    if folder is None:
        return _TRAINABLE_BYTES
    return sum(_unfrozen(path) for path in folder.glob("model*.safetensors"))


def _unfrozen(path: Path) -> int:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    spans = (entry["data_offsets"] for name, entry in header.items() if _FROZEN not in name)
    return sum(end - begin for begin, end in spans)


def free_memory(total: int) -> int:
    """Bytes of memory that are free now, of so many that this process may use."""
    return min(int(psutil.virtual_memory().available), total)


def check_device(params: Params, gpus: list[Gpu]) -> Check:
    """Whether the device that params name is here, and torch was built for it."""
    wanted = params.policy.device
    is_mac = platform.system() == "Darwin" and platform.machine() == "arm64"
    cpu_build = (installed("torch") or "").endswith("+cpu")
    cuda = len(gpus) >= params.policy.processes and not cpu_build
    found = ", ".join(gpu["name"] for gpu in gpus) or ("Apple GPU" if is_mac else "no GPU")
    if gpus and cpu_build:
        found += ", but torch is a build without CUDA"
    satisfied = {"cpu": True, "auto": True, "cuda": cuda, "mps": is_mac}[wanted]
    advice = "set policy.device to cpu or auto, or use a machine that has it (CUDA: see `nvidia-smi`)"
    each = f" for each of policy.processes {params.policy.processes}" * (params.policy.processes > 1)
    return Check("device", satisfied, found, f"policy.device {wanted}{each}", advice)


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
    need = memory_need(params, root, free_memory(total))
    severity: Literal["error", "warning"] = "error" if need.needed_bytes > total else "warning"
    found, expected = f"{size(need.available_bytes)} free of {size(total)}", f"about {size(need.needed_bytes)}"
    return Check("memory", need.fits, found, expected, need.advice, severity)


def check_disk(params: Params, root: Path, free: int) -> Check:
    """Whether what a run writes fits."""
    need = disk_need(params, root, free)
    return Check("disk", need.fits, f"{size(free)} free", f"about {size(need.needed_bytes)}", need.advice)


def size(count: int) -> str:
    """A number of bytes in GiB, for people."""
    return f"{count / GIB:,.1f} GiB"


def _sources(params: Params) -> list[str]:
    return [*params.data.sites.values(), *params.data.unseen.values()]
