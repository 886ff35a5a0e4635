"""Whether the cameras of the embedded arm can be rendered without a screen."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from zk0.checks import Check
from zk0.params import Params

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
