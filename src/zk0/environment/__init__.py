"""What this machine is and whether a run would get through on it, found out in about a second.

Nothing heavy is imported: versions are read from installed metadata, GPUs from ``nvidia-smi``,
and OpenGL is tried in a process of its own, since a broken driver takes its process down.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zk0.checks import Check, passed
from zk0.environment.needs import check_device, check_disk, check_memory, check_threads, simulated_sources
from zk0.environment.surroundings import SERVICES, check_graphics, check_hub, check_port
from zk0.machine import machine
from zk0.machine.packages import (
    Extra,
    check_locked_packages,
    check_python,
    check_required_packages,
    check_system,
    check_video,
    versions,
)
from zk0.machine.repository import check_remote
from zk0.params import Params


@dataclass
class Environment:
    """The content of ``results/environment.json``."""

    created: str
    passed: bool
    checks: list[Check]
    machine: Mapping[str, object]
    packages: dict[str, str]


def check_environment(params: Params, root: Path, data: bool = True) -> Environment:
    """Compare this machine with what a run of these params needs.

    Args:
        params: What would be run.
        root: The project's root, for its lock file and its disk.
        data: Whether the data that params name is read on this machine; a server of sites elsewhere reads none.

    Returns:
        The content of ``results/environment.json``.
    """
    if not data:
        params = params.model_copy(update={"data": params.data.model_copy(update={"sites": {}, "unseen": {}})})
    this, free = machine(), shutil.disk_usage(root).free
    roles = _roles(params, root)
    checks = [
        check_system(roles[0]),
        check_python(),
        check_required_packages(root, roles),
        check_locked_packages(root),
        check_device(params, this["gpus"]),
        check_threads(params, this["cores"]),
        check_memory(params, root, this["memory_bytes"]),
        check_disk(params, root, free),
        *check_graphics(params),
        check_video(),
        *check_remote(root),
        *check_hub(params),
        *(check_port(service) for service in SERVICES),
    ]
    created, told = datetime.now(UTC).isoformat(timespec="seconds"), {**this, "disk_free_bytes": free}
    return Environment(created, passed(checks), checks, told, versions())


def _roles(params: Params, root: Path) -> tuple[Extra, ...]:
    """The extras that a run's packages come by: the pipeline's stages are the server's, an owner's folder a site's."""
    wanted: list[Extra] = ["server" if (root / "dvc.yaml").is_file() else "site"]
    if simulated_sources(params):
        wanted.append("sim")
    if params.engine.name == "ray":
        wanted.append("scale")
    return tuple(wanted)
