"""What sources and the starting policy are at this moment, as digests: the content of sources.lock.json.

A digest changes exactly when what a run would train on, or start from, has changed. Nothing in the
lock depends on the machine or the time, so that an unchanged world writes the same bytes again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from zk0 import so100
from zk0.checkpoints import CheckpointError, read_checkpoint
from zk0.data.readings import MEASURED
from zk0.data.sim import tasks
from zk0.data.sim.rooms import room_of
from zk0.digests import DigestCache, digest_file, digest_value, new_digest
from zk0.files import read_json
from zk0.hub import HubError, fetch_policy, hub_commit
from zk0.machine.packages import installed
from zk0.params import Params
from zk0.sources import LockEntry, Source, SourcesLock
from zk0.tracking import TrackingError

DIGEST_CACHE = Path(".cache/digests.json")
BASE_VARIABLE = "ZK0_BASE"
RANDOM_BASES = ("random:nano", "random:full")
_DATASET_FOLDERS = ("meta", "data", "videos")
_CHECKPOINT_FILES = ("config.json", "model.safetensors")
_SIM_PACKAGES = ("so101-nexus", "mujoco", "av")  # av brings the encoder
_MLFLOW = re.compile(r"mlflow:(?P<model>[^/@]*)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))")


def starting_policy(params: Params) -> str:
    """The policy a run starts from: ``ZK0_BASE`` if set (a nightly run's champion), else ``policy.base``."""
    return os.environ.get(BASE_VARIABLE) or params.policy.base


def resolve_sources(params: Params, root: Path, start: str | None = None) -> SourcesLock:
    """Resolve every source and the starting policy.

    Args:
        params: Which sources and which policy.
        root: The project's root; relative paths are below it.
        start: The starting policy, such as the champion (None = :func:`starting_policy`).

    Returns:
        The content of ``sources.lock.json``: ``sources``, ``unseen`` and ``policy``, each with the
        source as written and its digest.

    Raises:
        ValueError: Something cannot be found. Every problem is listed, with what was expected.
    """
    problems: list[str] = []

    def attempt(where: str, resolve: Callable[[], LockEntry]) -> LockEntry:
        try:
            return resolve()
        except (ValueError, OSError, CheckpointError) as error:
            problems.append(f"{where}: {error}")
            return {"source": "", "digest": ""}

    with DigestCache(root / DIGEST_CACHE) as cache:
        sites, unseen = (
            {
                name: attempt(f"data.{label}.{name}", partial(_source, name, text, params, root, cache))
                for name, text in sources.items()
            }
            for label, sources in (("sites", params.data.sites), ("unseen", params.data.unseen))
        )
        base = start or starting_policy(params)
        setting = BASE_VARIABLE if os.environ.get(BASE_VARIABLE) else "policy.base"
        policy = attempt(setting, lambda: _start(base, params, root, cache))
    if problems:
        raise ValueError("\n".join(problems))
    return {"sources": sites, "unseen": unseen, "policy": policy}


def resolve_policy(params: Params, root: Path, known: LockEntry) -> LockEntry:
    """The lock's entry for the starting policy alone, for a server that has no data.

    Args:
        params: Which policy.
        root: The project's root.
        known: The entry that there is, or an empty one. A branch of the Hub and an alias stand for what they stood for
            then.

    Raises:
        ValueError: It cannot be found.
    """
    base = starting_policy(params)
    if known.get("source") == base and base_kind(base) in ("hub", "mlflow"):
        return known
    with DigestCache(root / DIGEST_CACHE) as cache:
        return _start(base, params, root, cache)


def base_kind(base: str) -> Literal["random", "hub", "mlflow", "folder"]:
    """Which form a starting policy is written in.

    Raises:
        ValueError: ``random:``, ``hub:`` or ``mlflow:`` with something unknown behind it.
    """
    if base.startswith("random:"):
        if base not in RANDOM_BASES:
            raise ValueError(f"'{base}' is not one of {', '.join(RANDOM_BASES)}")
        return "random"
    if base.startswith("hub:"):
        Source.parse(base)
        return "hub"
    if base.startswith("mlflow:"):
        _registered(base)
        return "mlflow"
    return "folder"


def base_folder(base: str, model: str, root: Path) -> Path | None:
    """The checkpoint folder that a starting policy is, or stands for now; None where it is none on this machine.

    Args:
        base: As ``policy.base`` in params.
        model: The registered model that params track, whose ``mlflow:@ALIAS`` is.
        root: The project's root.

    Raises:
        ValueError: No such version or alias, or its files are gone.
    """
    kind = base_kind(base)
    if kind == "folder":
        return _below(root, base.removeprefix("local:"))
    if kind != "mlflow":
        return None
    from zk0.tracking.registry import read_checkpoint  # noqa: PLC0415 - loads MLflow

    named, version = _registered(base)
    try:
        return read_checkpoint(root, named or model, version)[0]
    except TrackingError as error:
        raise ValueError(str(error)) from error


def _registered(base: str) -> tuple[str, str]:
    """The registered model that a base names, empty for the project's own, and its version or @alias."""
    found = _MLFLOW.fullmatch(base)
    if found is None:
        raise ValueError(f"'{base}' is not of the form mlflow:MODEL/VERSION, mlflow:MODEL@ALIAS or mlflow:@ALIAS")
    return found["model"], found["version"] or f"@{found['alias']}"


def _source(name: str, text: str, params: Params, root: Path, cache: DigestCache) -> LockEntry:
    source = Source.parse(text)
    if source.kind == "sim":
        digest, detail = _sim(name, source, params)
    elif source.kind == "local":
        digest, detail = _local(source.name, root, cache)
    else:
        digest = hub_commit(source.name, source.revision or "main", "dataset")
        detail = {"repository": source.name, "revision": source.revision or "main"}
    calibration = params.data.calibrations.get(name)
    if isinstance(calibration, str) and calibration != MEASURED:
        file = _below(root, calibration)
        if not file.is_file():
            raise ValueError(f"the calibration file {file} (data.calibrations) does not exist")
        detail["calibration"] = digest_file(file)
    return {"source": text, "digest": digest, "detail": detail}


def _sim(name: str, source: Source, params: Params) -> tuple[str, dict[str, object]]:
    """A simulated recording is decided by its task and room, the simulator's code and versions, and the params.

    The source's name counts as well: it decides the seeds of the scenes.
    """
    task = tasks.find_task(source.name)
    folder = Path(tasks.__file__).parent
    code = new_digest()
    for path in [*sorted(folder.glob("*.py")), Path(so100.__file__), folder.parent / "recordings.py"]:
        code.update(f"{path.name}\0{digest_file(path)}\n".encode())
    detail: dict[str, object] = {
        "task": repr(task),
        "code": code.hexdigest(),
        "seed": params.seed,
        "episodes": params.data.episodes,
        "noise": params.data.noise,
        "fps": params.data.fps,
        "packages": {package: _version(package) for package in _SIM_PACKAGES},
    }
    if source.room is not None:
        detail["room"] = repr(room_of(source.room))
    return digest_value({"name": name, **detail}), detail


def _version(package: str) -> str:
    if version := installed(package):
        return version
    raise ValueError(f"the package {package}, which simulated sources need, is not installed")


def _local(text: str, root: Path, cache: DigestCache) -> tuple[str, dict[str, object]]:
    folder = _below(root, text)
    info_file = folder / "meta" / "info.json"
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; expected the folder of a LeRobot dataset")
    if not info_file.is_file():
        raise ValueError(f"{folder} is no LeRobot dataset: meta/info.json not found in it")
    info = read_json(info_file)
    if not isinstance(info, dict):
        raise ValueError(f"{info_file} must hold a mapping, but holds {type(info).__name__}")
    files = [p for part in _DATASET_FOLDERS for p in sorted((folder / part).rglob("*")) if p.is_file()]
    detail: dict[str, object] = {"files": len(files), "bytes": sum(p.stat().st_size for p in files)}
    detail |= {key: info.get(key) for key in ("codebase_version", "robot_type", "fps", "total_episodes")}
    return cache.digest(folder, files), detail


def _start(base: str, params: Params, root: Path, cache: DigestCache) -> LockEntry:
    """The lock's entry of a starting policy; of one that is not params' own with what it is drawn back to."""
    entry = _policy(base, params, root, cache)
    if base != params.policy.base and params.policy.warm_start < 1:
        try:
            behind = _policy(params.policy.base, params, root, cache)
        except (ValueError, OSError, CheckpointError) as error:
            raise ValueError(
                f"policy.warm_start {params.policy.warm_start:g} draws it back to policy.base, but {error}"
            ) from error
        entry["shrink"] = {"to": behind, "kept": params.policy.warm_start}
    return entry


def _policy(base: str, params: Params, root: Path, cache: DigestCache) -> LockEntry:
    """The lock's entry; of a registered model with the folder that it stands for, since an alias moves on."""
    kind = base_kind(base)
    if kind == "random":
        return {"source": base, "digest": random_digest(base, params.seed)}
    folder = base_folder(base, params.tracking.model, root)
    if folder is None:
        source = Source.parse(base)
        commit = hub_commit(source.name, source.revision or "main", "model")
        _check_published(source.name, commit)
        return {"source": base, "digest": commit}
    entry: LockEntry = {"source": base, "digest": checkpoint_digest(folder, base, cache)}
    if kind == "mlflow":
        home = root.resolve()
        entry["folder"] = str(folder.relative_to(home) if folder.is_relative_to(home) else folder)
    return entry


def _check_published(repository: str, commit: str) -> None:
    """Read a policy of the Hub as data, but for its weights; what cannot be had now is read when it is loaded."""
    try:
        folder = fetch_policy(repository, commit, weights=False)
    except HubError:
        return
    read_checkpoint(folder, weights=False)


def random_digest(base: str, seed: int) -> str:
    """The digest of a policy that is drawn and not read; a run of another seed has another."""
    return digest_value([base, seed])


def checkpoint_digest(folder: Path, base: str, cache: DigestCache) -> str:
    """The digest of a checkpoint folder.

    Args:
        folder: Where it is.
        base: As a person wrote it, for errors.
        cache: Keeps the files' digests.

    Raises:
        ValueError: There is no such folder, or it holds no policy; says what is missing.
        CheckpointError: It holds something else than a SmolVLA's data.
    """
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; expected a checkpoint folder, hub:OWNER/NAME@REVISION, "
            f"mlflow:MODEL/VERSION, mlflow:MODEL@ALIAS, {' or '.join(RANDOM_BASES)} (got '{base}')"
        )
    if missing := [name for name in _CHECKPOINT_FILES if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is no policy checkpoint: {', '.join(missing)} not found in it")
    read_checkpoint(folder)
    return cache.digest(folder, sorted(p for p in folder.rglob("*") if p.is_file()))


def _below(root: Path, text: str) -> Path:
    return root / Path(text).expanduser()
