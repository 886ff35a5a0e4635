"""Resource allocation: what the federation's server takes of this machine, and whether there is so much."""

from __future__ import annotations

import shutil
from pathlib import Path

from zk0.environment import needs
from zk0.environment.needs import Need
from zk0.errors import StageError
from zk0.machine import machine
from zk0.network.config import Group, Resources
from zk0.params import Params

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
# A site's update waits in the SuperLink's database and again until its turn in the sum.
_COPIES_OF_A_REPLY = 2
_STATES_ON_DISK = 4
# On a GPU: weights, gradients, two moments, and activations of a batch.
_MODELS_ON_GPU, _ACTIVATIONS_BYTES_A_FRAME = 4, 150_000_000
_FEATURES_BYTES_A_FRAME, _FEATURES_SMALL_BYTES_A_FRAME = 245_760, 18_432  # image tokens in bf16, two cameras


def allocate(root: Path, params: Params, resources: Resources, starting: tuple[Group, ...], sites: int) -> list[Need]:
    """Hold what a federation's server needs against what there is.

    Args:
        root: Project folder.
        params: The run's.
        resources: What may be taken.
        starting: Groups of services that are still to be started; those that run have their memory already.
        sites: How many are admitted; two are assumed where there are fewer.

    Returns:
        What is needed and what there is, resource by resource.

    Raises:
        StageError: Something does not fit; gives the figures and what to do.
    """
    this, trainable = machine(), needs.trainable_bytes(root, params)
    memory = {
        "services": sum(SERVICES_BYTES[name] for name in starting),
        "the server's process": needs.PROCESS_BYTES,
        "models": _MODELS_IN_MEMORY * trainable,
        "left to others": resources.memory_reserve_bytes,
    }
    frames = needs.simulated_sources(params) * params.data.episodes * needs.SIM_FRAMES_AN_EPISODE
    large = trainable > 10 * needs.TRAINABLE_SMALL_BYTES
    features = frames * (_FEATURES_BYTES_A_FRAME if large else _FEATURES_SMALL_BYTES_A_FRAME)
    free = shutil.disk_usage(root).free
    disk = {
        "recordings and checkpoints": needs.disk_need(params, root, free).needed_bytes,
        "feature cache": 0 if params.features.cache == "off" else features,
        "states": _STATES_ON_DISK * trainable,
        "updates that wait": _COPIES_OF_A_REPLY * max(sites, 2) * trainable,
        "left free": resources.disk_reserve_bytes,
    }
    advice = "close other programs, start fewer services here, or lower resources.memory_reserve_bytes"
    room = "make room (`zk0 features clean`, `dvc gc --workspace`), or lower resources.disk_reserve_bytes"
    found = [
        Need("memory", memory, needs.free_memory(this["memory_bytes"]), advice),
        Need("disk", disk, free, room),
    ]
    if params.policy.device == "cuda" or (params.policy.device == "auto" and this["gpus"]):
        gpu = {"models": _MODELS_ON_GPU * trainable, "a batch": params.training.batch * _ACTIVATIONS_BYTES_A_FRAME}
        largest = max((gpu["memory_bytes"] or 0 for gpu in this["gpus"]), default=0)
        less = "lower training.batch, raise resources.gpu_share, or set policy.device to cpu"
        found.append(Need("GPU memory", gpu, int(largest * resources.gpu_share), less))
    if lacking := [need for need in found if not need.fits]:
        raise StageError("\n".join(f"{need.told()} does not fit; {need.advice}" for need in lacking))
    return found


def gpu_share(resources: Resources) -> dict[str, str]:
    """Environment in which a process of zk0 takes no more of a GPU's memory than its share."""
    return {GPU_SHARE: f"{resources.gpu_share:g}"}
