"""Trainings: one owner's data, one policy, a folder ``trainings/NAME`` in which a federation of one site runs.

A training is a project in small: its ``params.yaml`` names one site, and the pipeline's own stages run in its folder.
Nothing heavy is imported here, so that what cannot be is refused at once.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from zk0.environment import machine
from zk0.errors import StageError
from zk0.files import read_json, replaced_folder, write_text
from zk0.names import nearest_hint
from zk0.params import PARAMS_FILE, Params, load_params, parse_params
from zk0.resolve import base_folder, base_kind
from zk0.sources import Source

TRAININGS = Path("trainings")
DEFAULT_BASE = "hub:lerobot/smolvla_base"
SAVES = 20  # how often a training is saved and judged, where nothing else is said

# The nine documented steps of model training, in order.
STEPS = (
    "environment setup",
    "model loading",
    "dataset preparation",
    "training configuration",
    "local training",
    "parameter extraction",
    "server communication",
    "model update",
    "validation",
)

# Those that every round repeats: alone, they are a federation of one site.
ROUND_STEPS = STEPS[4:8]

# Steps and frames a step by device: on a GPU what LeRobot's guide to SmolVLA takes, elsewhere what ends the same day.
_BY_DEVICE = {"cuda": (20_000, 64), "mps": (4_000, 16), "cpu": (1_000, 8)}
_SO100_FPS, _SIM_FPS = 30, 10
_SMALL_POLICY_BYTES = 100_000_000
_MOST_THREADS = 8
_SHARED = (".cache", "constraints.md", "pyproject.toml", "requirements")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = """\
# A training of `zk0 train`, from the project's root: `zk0 train --name {name}` follows this file and goes on.
# Every setting is explained in the project's params.yaml; what is not here is as there by default.
"""


@dataclass(frozen=True)
class Request:
    """What a person asked for; None and empty leave it to the defaults.

    Attributes:
        data: ``local:PATH``, ``hub:OWNER/NAME@REVISION``, ``sim:TASK``, or a folder's path; None goes on with ``name``.
        name: The training's; the data's own by default.
        base: Starting policy, as ``policy.base`` in params.
        steps: Optimiser steps in all.
        batch: Frames a step.
        saves: How often the training is saved and judged on held-out episodes.
        learning_rate: Peak.
        device: cpu, cuda, mps or auto.
        fps: Frames a second to train at.
        cameras: Camera of the data to its name for the policy; None drops one.
        convention: How the joints' values are written, as ``data.conventions``.
        calibration: As ``data.calibrations``, for normalised values.
    """

    data: str | None = None
    name: str | None = None
    base: str | None = None
    steps: int | None = None
    batch: int | None = None
    saves: int | None = None
    learning_rate: float | None = None
    device: str | None = None
    fps: int | None = None
    cameras: Mapping[str, str | None] = field(default_factory=dict)
    convention: str | None = None
    calibration: str | None = None


@dataclass(frozen=True)
class Training:
    """A training and its folder.

    Attributes:
        root: The project's root, whose MLflow store and feature cache it shares.
        name: Its name, which is also its one site's and its registered model's.
        params: Its ``params.yaml``.
        fresh: Whether it was laid out just now.
    """

    root: Path
    name: str
    params: Params
    fresh: bool

    @property
    def folder(self) -> Path:
        """Where everything of it is."""
        return self.root / TRAININGS / self.name

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return f"zk0 train --name {self.name}"


def open_training(root: Path, request: Request) -> Training:
    """Lay out a new training, or open the one that is there.

    Raises:
        StageError: There is none of that name to go on with, or one of other settings; says which.
        ParamsError: The request breaks a rule of params.
        ValueError: The data or the starting policy is of no known form.
    """
    if request.data is None:
        return _existing(root, request)
    source = Source.parse(request.data if ":" in request.data else f"local:{request.data}")
    name = request.name or re.sub(r"[^A-Za-z0-9_-]+", "-", Path(source.name).name).strip("-")
    if not _NAME.fullmatch(name):
        raise StageError(f"a training's name may hold letters, digits, '-' and '_' only, not '{name}' (--name)")
    content = _content(root, request, source, name)
    params = parse_params(content, "zk0 train")
    folder = root / TRAININGS / name
    if (folder / PARAMS_FILE).exists():
        if changed := _differences(load_params(folder / PARAMS_FILE), params):
            raise StageError(
                f"{TRAININGS / name} is a training of other settings: {', '.join(changed)}. `zk0 train --name {name}` "
                "goes on with it as it is; --name ANOTHER starts a new one"
            )
        return Training(root, name, params, fresh=False)
    _lay_out(root, folder, content, name)
    return Training(root, name, params, fresh=True)


def camera_names(pairs: Sequence[str]) -> dict[str, str | None]:
    """``top=camera1`` as what it means; ``top=`` drops the camera.

    Raises:
        StageError: Not of that form.
    """
    names: dict[str, str | None] = {}
    for pair in pairs:
        own, equals, known = pair.partition("=")
        if not own or not equals:
            raise StageError(f"--camera takes DATA=POLICY, as in top=camera1, not '{pair}'")
        names[own] = known or None
    return names


@contextmanager
def removed_if_refused(training: Training) -> Iterator[None]:
    """Within the block, whatever ends a new training before its first round leaves nothing behind."""
    try:
        yield
    except BaseException:
        if training.fresh and not (training.folder / "state").exists():
            shutil.rmtree(training.folder, ignore_errors=True)
            if not any(training.folder.parent.iterdir()):
                training.folder.parent.rmdir()
        raise


def _existing(root: Path, request: Request) -> Training:
    known = sorted(path.parent.name for path in (root / TRAININGS).glob(f"*/{PARAMS_FILE}"))
    if request.name is None:
        there = f"; --name {known[0]} goes on with a training that is there" if known else ""
        raise StageError(f"--data says what to train on: local:PATH or hub:OWNER/NAME@REVISION{there}")
    if request.name not in known:
        hint = nearest_hint(request.name, known) if known else ""
        raise StageError(f"there is no training '{request.name}' to go on with{hint}; --data starts one")
    if given := [f.name for f in fields(request) if f.name != "name" and getattr(request, f.name) not in (None, {})]:
        raise StageError(
            f"--{given[0].replace('_', '-')} is for a new training, with --data; '{request.name}' follows "
            f"{TRAININGS / request.name / PARAMS_FILE}: change it there"
        )
    return Training(root, request.name, load_params(root / TRAININGS / request.name / PARAMS_FILE), fresh=False)


def _content(root: Path, request: Request, source: Source, name: str) -> dict[str, Any]:
    """The training's params.yaml; relative paths are made absolute, since it lies elsewhere."""
    device = request.device or _device()
    steps, batch = _BY_DEVICE["cuda" if device == "auto" else device] if device in (*_BY_DEVICE, "auto") else (1, 1)
    steps, batch = request.steps or steps, request.batch or batch
    local_steps = math.ceil(steps / (request.saves or SAVES))
    base = _base(root, request.base or DEFAULT_BASE)
    rate = request.learning_rate or (5e-4 if _is_small(base) else 1e-4)
    simulated = source.kind == "sim"
    data: dict[str, Any] = {
        "sites": {name: _absolute(root, source)},
        "missing_cameras": "empty",
        "fps": request.fps or _fps(root, source),
    }
    if request.cameras:
        data["cameras"] = {name: dict(request.cameras)}
    if request.convention:
        data["conventions"] = {name: request.convention}
    if request.calibration:
        file = root / Path(request.calibration).expanduser()
        data["calibrations"] = {name: str(file) if file.is_file() else request.calibration}
    return {
        "seed": 1,
        "threads": min(machine(root)["cores"], _MOST_THREADS),
        "policy": {"base": base, "device": device},
        "data": data,
        "training": {
            "local_steps": local_steps,
            "batch": batch,
            "learning_rate": rate,
            "warmup_steps": min(1_000, steps // 10),
            "final_learning_rate": rate / 40,
            "precision": "bf16" if device == "cuda" else "fp32",
            "keep_moments": True,  # one optimiser from the first step to the last: saving is no new start
        },
        "federation": {"rounds": math.ceil(steps / local_steps)},
        "evaluation": {"rollouts": 20 if simulated else 0, "videos": 2 if simulated else 0},
        "tracking": {"experiment": "zk0-train", "model": name},
        "promotion": {"automatic": False, "metric": "success_rate" if simulated else "action_error_deg"},
    }


def _device() -> str:
    return "cuda" if machine()["gpus"] else "cpu"


def _base(root: Path, base: str) -> str:
    """A starting policy that means the same in the training's folder; a registered model's version is its folder."""
    kind = base_kind(base)
    if kind in ("random", "hub"):
        return base
    known = root / PARAMS_FILE
    params = load_params(known) if known.exists() else parse_params({"policy": {"base": base}, "data": _ANY_DATA})
    return str(_plain(base_folder(base, params, root) or root / base))


_ANY_DATA = {"sites": {"any": "local:any"}}  # only to have params where a project has none


def _is_small(base: str) -> bool:
    """Whether a policy is of the embedded size, which learns at a higher rate."""
    if base == "random:nano":
        return True
    weights = Path(base) / "model.safetensors"
    return weights.is_file() and weights.stat().st_size < _SMALL_POLICY_BYTES


def _absolute(root: Path, source: Source) -> str:
    if source.kind != "local":
        return str(source)
    return f"local:{_plain(root / Path(source.name).expanduser())}"


def _plain(path: Path) -> Path:
    """Absolute, without dots and links: what a training starts from does not move with one."""
    return path.resolve()


def _fps(root: Path, source: Source) -> int:
    """The rate of a dataset that is there; what is wrong with its description is told when it is checked."""
    if source.kind == "sim":
        return _SIM_FPS
    try:
        return int(read_json(root / Path(source.name).expanduser() / "meta" / "info.json")["fps"])
    except (OSError, ValueError, KeyError, TypeError):
        return _SO100_FPS


def _differences(one: Params, other: Params) -> list[str]:
    """Settings in which two params differ, as ``data.fps is 10, asked for is 30``."""
    mine, asked = _flat(one.model_dump()), _flat(other.model_dump())
    return [
        f"{name} is {mine.get(name)}, asked for is {asked.get(name)}"
        for name in sorted(mine | asked)
        if mine.get(name) != asked.get(name)
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _lay_out(root: Path, folder: Path, content: dict[str, Any], name: str) -> None:
    """Write the folder whole: params, and links to what it shares with the project."""
    (root / ".cache").mkdir(exist_ok=True)
    with replaced_folder(folder) as fresh:
        write_text(fresh / PARAMS_FILE, _HEADER.format(name=name) + yaml.safe_dump(content, sort_keys=False))
        for shared in _SHARED:
            if (root / shared).exists():
                (fresh / shared).symlink_to((root / shared).resolve())
