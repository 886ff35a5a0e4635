"""What this machine is: its processor, memory and graphics cards; beside it the packages and the code's revision."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TypedDict

import psutil

GIB = 1 << 30


class Gpu(TypedDict):
    """A graphics card as its driver's tool tells of it."""

    name: str
    memory_bytes: int | None
    driver: str


class Machine(TypedDict):
    """The machine, as run.json and benchmark.json note it."""

    platform: str
    cpu: str
    cores: int
    memory_bytes: int
    gpus: list[Gpu]
    python: str


def machine() -> Machine:
    """What this machine is."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory_limit(),
        "gpus": _gpus(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_limit() -> int:
    """Bytes of memory this process may use: the machine's, or its container's if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def _gpus() -> list[Gpu]:
    """NVIDIA GPUs, by asking the driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines()]
    return [
        {"name": name, "memory_bytes": int(mib) * (1 << 20) if mib.isdigit() else None, "driver": driver}
        for name, mib, driver in (row for row in rows if len(row) == 3)
    ]
