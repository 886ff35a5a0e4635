"""The embedded SO-101: a MuJoCo arm, its tasks, a scripted expert and the recorder."""

import os
import sys

# MuJoCo chooses its GL when it is imported. EGL needs no display; macOS has its own.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
