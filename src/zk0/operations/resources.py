"""Resource allocation: what the federation's server takes of this machine, and whether there is so much."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from zk0.environment import GIB, machine, needed_bytes
from zk0.errors import StageError
from zk0.network.config import Group, Resources
from zk0.params import Params
from zk0.sources_lock import base_folder, starting_policy

GPU_SHARE = "ZK0_GPU_SHARE"

# Resident memory of services, on the large side; a test holds it against those that run.
SERVICES_BYTES: dict[Group, int] = {
    "mlflow": 700_000_000,
    "prefect": 800_000_000,
    "federation": 500_000_000,
    "monitor": 100_000_000,
}
# A policy on the server: its tensors, the sum, the optimiser's two moments, the round's result, and what is exported.
_MODELS_IN_MEMORY = 6
_PROCESS_BYTES = 2 * GIB
# A site's update waits in the SuperLink's database and again until its turn in the sum.
_COPIES_OF_A_REPLY = 2
_STATES_ON_DISK = 4
# Where a policy is not on this machine: of smolvla_base, in float32.
_TRAINABLE_BYTES, _TRAINABLE_SMALL_BYTES = 400_000_000, 2_000_000
_FROZEN = "vlm_with_expert.vlm."
# On a GPU: weights, gradients, two moments, and activations of a batch.
_MODELS_ON_GPU, _ACTIVATIONS_BYTES_A_FRAME = 4, 150_000_000
_FEATURES_BYTES_A_FRAME, _FEATURES_SMALL_BYTES_A_FRAME = 245_760, 18_432  # image tokens in bf16, two cameras
_SIM_FRAMES_AN_EPISODE = 40


@dataclass(frozen=True)
class Need:
    """One resource: what is wanted, and what there is.

    Attributes:
        name: ``memory``, ``disk`` or ``GPU memory``.
        needed_bytes: Wanted, the reserve included.
        available_bytes: There now.
        parts: What it is wanted for, in bytes.
        advice: What to do where it does not fit.
    """

    name: str
    needed_bytes: int
    available_bytes: int
    parts: dict[str, int]
    advice: str

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.needed_bytes <= self.available_bytes

    def told(self) -> str:
        """The figures as a sentence."""
        parts = ", ".join(f"{name} {_size(size)}" for name, size in self.parts.items() if size)
        return f"{self.name}: {_size(self.needed_bytes)} of {_size(self.available_bytes)} ({parts})"

    def as_dict(self) -> dict[str, Any]:
        """As results/deployment.json keeps it."""
        return asdict(self) | {"fits": self.fits}


@dataclass(frozen=True)
class Allocation:
    """What is set aside, and what processes are told of it.

    Attributes:
        needs: Resource by resource.
        environment: For every process that is started here.
    """

    needs: tuple[Need, ...]
    environment: dict[str, str]


def allocate(root: Path, params: Params, resources: Resources, starting: tuple[Group, ...], sites: int) -> Allocation:
    """Hold what a federation's server needs against what there is.

    Args:
        root: Project folder.
        params: The run's.
        resources: What may be taken.
        starting: Groups of services that are still to be started; those that run have their memory already.
        sites: How many are admitted; two are assumed where there are fewer.

    Raises:
        StageError: Something does not fit; gives the figures and what to do.
    """
    this = machine()
    needs = [
        _memory(root, params, resources, starting, this["memory_bytes"]),
        _disk(root, params, resources, max(sites, 2), shutil.disk_usage(root).free),
    ]
    if params.policy.device == "cuda" or (params.policy.device == "auto" and this["gpus"]):
        needs.append(_gpu(root, params, resources, this["gpus"]))
    if lacking := [need for need in needs if not need.fits]:
        raise StageError("\n".join(f"{need.told()} does not fit; {need.advice}" for need in lacking))
    return Allocation(tuple(needs), gpu_share(resources))


def gpu_share(resources: Resources) -> dict[str, str]:
    """Environment in which a process of zk0 takes no more of a GPU's memory than its share."""
    return {GPU_SHARE: f"{resources.gpu_share:g}"}


def trainable_bytes(root: Path, params: Params) -> int:
    """Bytes of the tensors that train, by the header of the starting policy's file; a site's update has as many."""
    base = starting_policy(params)
    if base == "random:nano":
        return _TRAINABLE_SMALL_BYTES
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


def _memory(root: Path, params: Params, resources: Resources, services: tuple[Group, ...], total: int) -> Need:
    trainable = trainable_bytes(root, params)
    parts = {
        "services": sum(SERVICES_BYTES[name] for name in services),
        "the server's process": _PROCESS_BYTES,
        "models": _MODELS_IN_MEMORY * trainable,
        "left to others": resources.memory_reserve_bytes,
    }
    free = min(int(psutil.virtual_memory().available), total)
    advice = "close other programs, start fewer services here, or lower resources.memory_reserve_bytes"
    return Need("memory", sum(parts.values()), free, parts, advice)


def _disk(root: Path, params: Params, resources: Resources, sites: int, free: int) -> Need:
    trainable = trainable_bytes(root, params)
    simulated = sum(s.startswith("sim:") for s in [*params.data.sites.values(), *params.data.unseen.values()])
    frames = simulated * params.data.episodes * _SIM_FRAMES_AN_EPISODE
    a_frame = _FEATURES_BYTES_A_FRAME if trainable > 10 * _TRAINABLE_SMALL_BYTES else _FEATURES_SMALL_BYTES_A_FRAME
    parts = {
        "recordings and checkpoints": needed_bytes(params, root)[1],
        "feature cache": 0 if params.features.cache == "off" else frames * a_frame,
        "states": _STATES_ON_DISK * trainable,
        "updates that wait": _COPIES_OF_A_REPLY * sites * trainable,
        "left free": resources.disk_reserve_bytes,
    }
    advice = "make room (`zk0 features clean`, `dvc gc --workspace`), or lower resources.disk_reserve_bytes"
    return Need("disk", sum(parts.values()), free, parts, advice)


def _gpu(root: Path, params: Params, resources: Resources, gpus: list[dict[str, Any]]) -> Need:
    parts = {
        "models": _MODELS_ON_GPU * trainable_bytes(root, params),
        "a batch": params.training.batch * _ACTIVATIONS_BYTES_A_FRAME,
    }
    largest = max((gpu["memory_bytes"] or 0 for gpu in gpus), default=0)
    available = int(largest * resources.gpu_share)
    advice = "lower training.batch, raise resources.gpu_share, or set policy.device to cpu"
    return Need("GPU memory", sum(parts.values()), available, parts, advice)


def _size(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
