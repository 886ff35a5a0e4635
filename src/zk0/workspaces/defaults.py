"""From a request to params: what it leaves open is set by the device, the policy's size and the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zk0.errors import StageError
from zk0.files import read_json
from zk0.machine import machine
from zk0.params import PARAMS_FILE, TrackingParams, load_params
from zk0.sources import Source
from zk0.sources_lock import base_folder

DEFAULT_BASE = "hub:lerobot/smolvla_base"
SAVES = 20  # how often a training is saved and judged

# Steps and frames a step by device: on a GPU what LeRobot's guide to SmolVLA takes, elsewhere what ends the same day.
_BY_DEVICE = {"cuda": (20_000, 64), "mps": (4_000, 16), "cpu": (1_000, 8)}
_SO100_FPS, _SIM_FPS = 30, 10
_SMALL_POLICY_BYTES = 100_000_000
_MOST_THREADS = 8


def params_content(root: Path, request: Request, source: Source, name: str) -> dict[str, object]:
    """The training's params.yaml; relative paths are made absolute, since it lies elsewhere.

    Args:
        root: The project's root, from which relative paths go.
        request: What was asked for; what it leaves out is filled in.
        source: Its data.
        name: Of the training, its site and its registered model.

    Raises:
        ValueError: The starting policy is of no known form, or not registered.
    """
    device = request.device or default_device()
    kind = default_device() if device == "auto" else device
    steps, batch = _BY_DEVICE.get(kind, (1, 1))  # params refuse what is no device
    steps, batch = request.steps or steps, request.batch or batch
    local_steps = math.ceil(steps / (request.saves or SAVES))
    base = base_here(root, request.base or DEFAULT_BASE)
    rate = request.learning_rate or (5e-4 if _is_small(base) else 1e-4)
    simulated = source.kind == "sim"
    return {
        "seed": 1,
        "threads": default_threads(),
        "policy": {"base": base, "device": device},
        "data": data_content(root, request, source, name),
        "training": {
            "local_steps": local_steps,
            "batch": batch,
            "learning_rate": rate,
            "warmup_steps": min(1_000, steps // 10),
            "final_learning_rate": rate / 40,
            "precision": "bf16" if kind == "cuda" else "fp32",
            "keep_moments": True,  # one optimiser from the first step to the last: saving is no new start
        },
        "federation": {"rounds": math.ceil(steps / local_steps)},
        "evaluation": {"rollouts": 20 if simulated else 0, "videos": 2 if simulated else 0},
        "tracking": {"experiment": "zk0-train", "model": name},
        "promotion": {"automatic": False, "metric": "success_rate" if simulated else "action_error_deg"},
    }


def data_content(root: Path, request: Request, source: Source, name: str) -> dict[str, object]:
    """One owner's ``data`` in params.yaml; see :func:`params_content`."""
    data: dict[str, object] = {
        "sites": {name: f"local:{_absolute(root, source.name)}" if source.kind == "local" else str(source)},
        "missing_cameras": "empty",
        "fps": request.fps or _fps(root, source),
    }
    if request.cameras:
        data["cameras"] = {name: dict(request.cameras)}
    if request.convention:
        data["conventions"] = {name: request.convention}
    if request.calibration:
        file = _absolute(root, request.calibration)
        data["calibrations"] = {name: str(file) if file.is_file() else request.calibration}
    if request.leave_out:
        data["leave_out"] = {name: list(request.leave_out)}
    return data


def default_threads() -> int:
    """As many as there are cores, up to eight."""
    return min(machine()["cores"], _MOST_THREADS)


def default_device() -> str:
    """cuda where there is a GPU for it, else cpu."""
    return "cuda" if machine()["gpus"] else "cpu"


def base_here(root: Path, base: str) -> str:
    """A starting policy that means the same in another folder; a registered model's version is its folder."""
    known = root / PARAMS_FILE
    tracking = load_params(known).tracking if known.exists() else TrackingParams()
    folder = base_folder(base, tracking.model, root)
    return base if folder is None else str(_absolute(root, folder))


def _is_small(base: str) -> bool:
    """Whether a policy is of the embedded size, which learns at a higher rate."""
    if base == "random:nano":
        return True
    weights = Path(base) / "model.safetensors"
    return weights.is_file() and weights.stat().st_size < _SMALL_POLICY_BYTES


def _absolute(root: Path, path: str | Path) -> Path:
    """Without dots and links: what a training starts from does not move with one."""
    return (root / Path(path).expanduser()).resolve()


def _fps(root: Path, source: Source) -> int:
    """The rate of a dataset that is there; what is wrong with its description is told when it is checked."""
    if source.kind == "sim":
        return _SIM_FPS
    try:
        return int(read_json(_absolute(root, source.name) / "meta" / "info.json")["fps"])
    except (OSError, ValueError, KeyError, TypeError):
        return _SO100_FPS


@dataclass(frozen=True)
class Request:
    """What a person asked for; None and empty leave it to the defaults.

    Attributes:
        data: ``local:PATH``, ``hub:OWNER/NAME@REVISION``, ``sim:TASK``, or a folder's path; None goes on with ``name``.
        name: The training's; the data's own by default.
        base: Starting policy, as ``policy.base`` in params.
        device: cpu, cuda, mps or auto.
        fps: Frames a second to train at.
        cameras: Camera of the data to its name for the policy; None drops one.
        convention: How the joints' values are written, as ``data.conventions``.
        calibration: As ``data.calibrations``, for normalised values.
        leave_out: Episodes that neither train nor judge.
        steps: Optimiser steps in all.
        batch: Frames a step.
        saves: How often the training is saved and judged on held-out episodes.
        learning_rate: Peak.
    """

    data: str | None = None
    name: str | None = None
    base: str | None = None
    device: str | None = None
    fps: int | None = None
    cameras: Mapping[str, str | None] | None = None
    convention: str | None = None
    calibration: str | None = None
    leave_out: Sequence[int] | None = None
    steps: int | None = None
    batch: int | None = None
    saves: int | None = None
    learning_rate: float | None = None


def camera_names(pairs: Sequence[str] | None) -> dict[str, str | None]:
    """``top=camera1`` as what it means; ``top=`` drops the camera.

    Raises:
        StageError: Not of that form.
    """
    names: dict[str, str | None] = {}
    for pair in pairs or ():
        own, equals, known = pair.partition("=")
        if not own or not equals:
            raise StageError(f"--camera takes DATA=POLICY, as in top=camera1, not '{pair}'")
        names[own] = known or None
    return names
