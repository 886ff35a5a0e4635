"""What a run needs around it: cameras rendered without a screen, the Hub, and the ports of the local services."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

from zk0.checks import Check
from zk0.hub import unreachable
from zk0.params import Params
from zk0.sources_lock import starting_policy

SERVICES = {"Prefect": (4200, "/api/health", b"true"), "MLflow": (5000, "/health", b"OK")}
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


def check_graphics(params: Params) -> list[Check]:
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


def check_hub(params: Params) -> list[Check]:
    """Access to the Hugging Face Hub, where params use it; public repositories need no token."""
    used = [*params.data.sites.values(), *params.data.unseen.values(), starting_policy(params)]
    if not any(text.startswith("hub:") for text in used):
        return []
    why_not = unreachable()
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token = os.environ.get("HF_TOKEN") or Path(os.environ.get("HF_TOKEN_PATH") or home / "token").is_file()
    return [
        Check(
            "hub access",
            why_not is None,
            why_not or "it answers",
            "an answer, for hub: sources",
            "mend it, unless everything is in the local Hub cache already",
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


def check_port(service: str) -> Check:
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
