"""What this machine is and whether a run would get through on it, found out in about a second.

Nothing heavy is imported: versions are read from installed metadata, GPUs from ``nvidia-smi``,
and OpenGL is tried in a process of its own, since a broken driver takes its process down.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement

from zk0.params import Params
from zk0.resolve import base_kind, starting_policy

LOCK_FILE = Path("requirements/lock.txt")
PYTHON = (3, 12)
# What the numbers of a run depend on.
PACKAGES = (
    "torch", "torchvision", "lerobot", "transformers", "numpy", "safetensors", "av",
    "mujoco", "so101-nexus", "flwr", "dvc", "prefect", "mlflow",
)  # fmt: skip
SERVICES = {"Prefect": (4200, "/api/health", b"true"), "MLflow": (5000, "/health", b"OK")}
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)

GIB = 1 << 30
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

_EGL_PROBE = """
import ctypes
pointer = ctypes.c_void_p
egl = ctypes.CDLL("libEGL.so.1")
egl.eglGetProcAddress.restype = pointer
egl.eglInitialize.argtypes = [pointer, pointer, pointer]
def extension(name, *types):
    address = egl.eglGetProcAddress(name)
    if not address:
        raise SystemExit("EGL lacks " + name.decode())
    return ctypes.CFUNCTYPE(*types)(address)
count, devices = ctypes.c_int(), (pointer * 32)()
integers = ctypes.POINTER(ctypes.c_int)
query = extension(b"eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, ctypes.POINTER(pointer), integers)
display = extension(b"eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer)
query(32, devices, ctypes.byref(count))
works = [i for i in range(count.value) if egl.eglInitialize(display(0x313F, devices[i], None), None, None)]
if not works:
    raise SystemExit(f"none of {count.value} EGL devices can be initialised")
print(f"EGL, {len(works)} of {count.value} devices")
"""
_OSMESA_PROBE = """
import ctypes, ctypes.util
name = ctypes.util.find_library("OSMesa")
if not name:
    raise SystemExit("libOSMesa not found")
ctypes.CDLL(name)
print(name)
"""


@dataclass(frozen=True)
class Check:
    """One thing a run needs. A failed ``error`` stops the run, a failed ``warning`` does not."""

    name: str
    passed: bool
    found: str
    expected: str
    advice: str
    severity: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, Any]:
        """As results/environment.json keeps it."""
        return asdict(self)


def check_environment(params: Params, root: Path) -> dict[str, Any]:
    """Compare this machine with what a run of these params needs.

    Args:
        params: What would be run.
        root: The project's root, for its lock file and its disk.

    Returns:
        The content of ``results/environment.json``.
    """
    this = machine(root)
    checks = [
        _python(),
        _required_packages(root),
        _locked_packages(root),
        _device(params, this["gpus"]),
        _threads(params, this["cores"]),
        _memory(params, root, this["memory_bytes"]),
        _disk(params, root, this["disk_free_bytes"]),
        *_graphics(params),
        _video(),
        *_hub(params),
        *(_port(service) for service in SERVICES),
    ]
    return {
        "created": now(),
        "passed": passed(checks),
        "checks": [check.as_dict() for check in checks],
        "machine": this,
        "packages": versions(),
    }


def passed(checks: list[Check]) -> bool:
    """Whether no check of severity ``error`` failed."""
    return all(check.passed or check.severity == "warning" for check in checks)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(root: Path = Path()) -> dict[str, Any]:
    """The machine, as run.json and benchmark.json note it: sizes in bytes, GPUs with name, memory and driver."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory_limit(),
        "disk_free_bytes": shutil.disk_usage(root).free,
        "gpus": _gpus(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers."""
    return {name: version for name in PACKAGES if (version := _installed(name))}


def needed_bytes(params: Params, root: Path) -> tuple[int, int]:
    """Estimate the memory and disk that a run needs, in bytes; on the large side."""
    sources = [*params.data.sites.values(), *params.data.unseen.values()]
    simulated = sum(source.startswith("sim:") for source in sources)
    limit = params.data.decoded_limit_bytes
    recorded = min(params.data.episodes * _DECODED_EPISODE_BYTES, limit)
    parts = 1 if params.data.partition.scheme == "none" else params.data.partition.sites
    policy = _policy_bytes(starting_policy(params), root)
    memory = _PROCESS_BYTES + _POLICIES_IN_MEMORY * policy
    memory += simulated * recorded + (len(sources) - simulated) * parts * limit
    # Twice, since DVC keeps a copy of what a stage wrote.
    disk = 2 * simulated * params.data.episodes * _RECORDED_EPISODE_BYTES
    disk += sum(source.startswith("hub:") for source in sources) * _HUB_DATASET_BYTES
    return memory, disk + _POLICIES_ON_DISK * policy + _RESERVE_BYTES


def _policy_bytes(base: str, root: Path) -> int:
    """Size of a starting policy; 0 where it is not there, which resolving it complains of."""
    if base in _POLICY_BYTES:
        return _POLICY_BYTES[base]
    try:
        if base_kind(base) == "hub":
            return _POLICY_BYTES["hub"]
    except ValueError:
        return 0
    return sum(path.stat().st_size for path in (root / Path(base).expanduser()).glob("*.safetensors"))


def _python() -> Check:
    return Check(
        "python",
        sys.version_info[:2] == PYTHON,
        platform.python_version(),
        ".".join(map(str, PYTHON)),
        "install Python 3.12 and make the environment anew: `make install`",
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required_packages(root: Path) -> Check:
    """pyproject.toml's own dependencies: without these versions the code is not known to work."""
    expected, advice = "what pyproject.toml asks for", "install them: `make install`"
    file = root / "pyproject.toml"
    if not file.is_file():
        return Check("packages", False, "pyproject.toml not found", expected, "run from the project's root", "warning")
    project = tomllib.loads(file.read_text()).get("project", {})
    wanted = [Requirement(text) for text in project.get("dependencies", [])]
    wrong = [
        f"{item.name} {_installed(item.name) or 'missing'} (needs {item.specifier or 'any'})"
        for item in wanted
        if (item.marker is None or item.marker.evaluate())
        and not item.specifier.contains(_installed(item.name) or "0.dev0", prereleases=bool(_installed(item.name)))
    ]
    return Check("packages", not wrong, _some(wrong) or f"all {len(wanted)}", expected, advice)


def _locked_packages(root: Path) -> Check:
    """The lock file's exact versions: others may work, but give other numbers."""
    expected, advice = f"the versions in {LOCK_FILE}", "reinstall them: `make install`; needed to repeat a run exactly"
    file = root / LOCK_FILE
    if not file.is_file():
        return Check("locked packages", False, f"{LOCK_FILE} not found", expected, advice, "warning")
    wanted = [
        (name, version)
        for name, version, marker in _PINNED.findall(file.read_text())
        if not marker or Requirement(f"{name}; {marker}").marker.evaluate()  # type: ignore[union-attr]
    ]
    wrong = [
        f"{name} {found or 'missing'} (lock: {version})"
        for name, version in wanted
        # A build tag such as +cpu is the same release for another machine.
        if (found := _installed(name)) is None or found.partition("+")[0] != version.partition("+")[0]
    ]
    return Check("locked packages", not wrong, _some(wrong) or f"all {len(wanted)}", expected, advice, "warning")


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _device(params: Params, gpus: list[dict[str, Any]]) -> Check:
    wanted = params.policy.device
    is_mac = platform.system() == "Darwin" and platform.machine() == "arm64"
    cpu_build = (_installed("torch") or "").endswith("+cpu")
    cuda = bool(gpus) and not cpu_build
    found = ", ".join(gpu["name"] for gpu in gpus) or ("Apple GPU" if is_mac else "no GPU")
    if gpus and cpu_build:
        found += ", but torch is a build without CUDA"
    satisfied = {"cpu": True, "auto": True, "cuda": cuda, "mps": is_mac}[wanted]
    advice = "set policy.device to cpu or auto, or use a machine that has it (CUDA: see `nvidia-smi`)"
    return Check("device", satisfied, found, f"policy.device {wanted}", advice)


def _threads(params: Params, cores: int) -> Check:
    return Check(
        "threads",
        params.threads <= cores,
        f"{cores} cores",
        f"at least threads {params.threads}",
        f"set threads to {cores}: more than there are cores makes training slower",
        "warning",
    )


def _memory(params: Params, root: Path, total: int) -> Check:
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


def _disk(params: Params, root: Path, free: int) -> Check:
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


def _graphics(params: Params) -> list[Check]:
    """OpenGL without a screen, which the cameras of the embedded arm need."""
    sources = [*params.data.sites.values(), *params.data.unseen.values()]
    if not any(source.startswith("sim:") for source in sources):
        return []
    linux = platform.system() == "Linux"
    backend = os.environ.get("MUJOCO_GL", "").lower().strip() or ("egl" if linux else "native")
    advice = "install Mesa's EGL (Debian: apt-get install libegl1 libgl1 libglx-mesa0) and leave MUJOCO_GL unset"
    if linux and backend in ("egl", "osmesa"):
        works, found = _probe(_EGL_PROBE if backend == "egl" else _OSMESA_PROBE)
    elif linux and backend in ("glfw", "glx"):
        screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        works, found = bool(screen), f"a screen at {screen}" if screen else f"{backend} has no screen to draw on"
    else:
        works, found = not linux and backend in ("native", "glfw", "cgl", "wgl"), f"MUJOCO_GL={backend}"
    return [Check("graphics", works, found, f"MuJoCo can render with {backend}", advice)]


def _probe(script: str) -> tuple[bool, str]:
    """Run a few lines in a bare interpreter: whether they went well, and what they last said."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "no answer within 10 s"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, said[-1] if said else f"ended with code {done.returncode}"


def _video() -> Check:
    found = importlib.util.find_spec("av") is not None
    expected = "PyAV, with its own FFmpeg"
    return Check("video", found, f"PyAV {_installed('av')}" if found else "no PyAV", expected, "run `make install`")


def _hub(params: Params) -> list[Check]:
    """Access to the Hugging Face Hub, where params use it; public repositories need no token."""
    used = [*params.data.sites.values(), *params.data.unseen.values(), starting_policy(params)]
    if not any(text.startswith("hub:") for text in used):
        return []
    on = ("1", "true", "yes", "on")
    offline = [n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(n, "").lower() in on]
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token = os.environ.get("HF_TOKEN") or Path(os.environ.get("HF_TOKEN_PATH") or home / "token").is_file()
    return [
        Check(
            "hub access",
            not offline,
            f"{' and '.join(offline)} set" if offline else "online",
            "online, for hub: sources",
            "unset them, unless everything is in the local Hub cache already",
            "warning",
        ),
        Check(
            "hub token",
            bool(token),
            "a token" if token else "no token",
            "a token, for private or gated repositories",
            "`hf auth login`; not needed for public repositories",
            "warning",
        ),
    ]


def _port(service: str) -> Check:
    """A port is fine when it is free, or when the service it is for already answers there."""
    port, path, answer = SERVICES[service]
    check = {"name": f"port {port}", "expected": f"free for {service}, or {service} itself"}
    advice = f"find who uses it (`lsof -i :{port}`), or start {service} on another port"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
            connection.settimeout(0.3)
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            reply = b""
            while block := connection.recv(4096):
                reply += block
    except TimeoutError:
        reply = b""
    except OSError:
        return Check(passed=True, found="free", advice=advice, severity="warning", **check)
    itself = b" 200 " in reply.partition(b"\r\n")[0] and reply.endswith(answer)
    found = f"{service} is running" if itself else "in use by something else"
    return Check(passed=itself, found=found, advice=advice, severity="warning", **check)


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


def _gpus() -> list[dict[str, Any]]:
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
