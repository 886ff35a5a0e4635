"""The SO-101 in MuJoCo, seen through LeRobot's joint names and units.

The kinematics come from MuJoCo Menagerie's ``robotstudio_so101`` (Apache-2.0), which the
``so101-nexus`` package ships. Its visual meshes have 348,000 faces, far more than a 96-pixel
camera shows, so they are thinned by vertex clustering when the model is loaded: that is what
makes software rendering fast enough to record and evaluate on a laptop.

LeRobot's units for an SO-100 or SO-101: degrees for the five arm joints, 0 (closed) to 100 (open)
for the gripper.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
import trimesh

from zk0.so100 import JOINTS

TOOL_SITE = "gripperframe"
WRIST_CAMERA = "wrist_cam"
ROBOT_TYPE = "so101_follower"

# Vertices of a visual mesh that fall into the same cube of this edge become one.
MESH_CELL_M = 0.004


def model_folder() -> Path:
    """Folder of the SO-101 model in the installed ``so101-nexus`` (not imported: it is slow)."""
    spec = importlib.util.find_spec("so101_nexus")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the package so101-nexus, which carries the SO-101 model, is not installed", name="so101_nexus"
        )
    return Path(spec.submodule_search_locations[0]) / "assets" / "SO101_menagerie"


def cluster_vertices(vertices: np.ndarray, faces: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Thin a mesh by replacing all vertices in one grid cell with their mean.

    Rossignac and Borrel, "Multi-resolution 3D approximations for rendering complex scenes", 1993.
    Unlike quadric decimation it does not mind the open edges that CAD exports are full of.

    Args:
        vertices: (V, 3) positions in metres.
        faces: (F, 3) vertex indices.
        cell: Edge of a grid cell in metres.

    Returns:
        The thinned (v, 3) vertices and (f, 3) faces, without degenerate or doubled faces.
    """
    _, group = np.unique(np.round(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    group = group.ravel()
    size = np.bincount(group)
    merged = np.stack([np.bincount(group, vertices[:, axis]) / size for axis in range(3)], axis=1)
    corners = group[faces]
    a, b, c = corners.T
    corners = corners[(a != b) & (b != c) & (a != c)]
    _, first = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    return merged, corners[np.sort(first)]


@cache
def _thin_meshes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Thinned vertices and faces of every visual mesh, by file name; computed once a process."""
    folder = model_folder()
    spec = mujoco.MjSpec.from_file(str(folder / "so101.xml"))
    thinned = {}
    for mesh in spec.meshes:
        if mesh.file and "gripper_part" not in mesh.file:  # those are collision hulls, small already
            full = trimesh.load_mesh(folder / "assets" / mesh.file)
            thinned[mesh.file] = cluster_vertices(np.asarray(full.vertices), np.asarray(full.faces), MESH_CELL_M)
    return thinned


def arm_spec() -> mujoco.MjSpec:
    """A fresh, editable MuJoCo specification of the arm with thinned visual meshes."""
    spec = mujoco.MjSpec.from_file(str(model_folder() / "so101.xml"))
    for mesh in spec.meshes:
        if mesh.file in (thinned := _thin_meshes()):
            vertices, faces = thinned[mesh.file]
            mesh.file = ""
            mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
            mesh.uservert = vertices.ravel().tolist()
            mesh.userface = faces.ravel().tolist()
    return spec


class Units:
    """Between MuJoCo's radians and LeRobot's degrees and gripper percentage.

    Args:
        model: With the arm's joints.
        off: What calibration leaves a joint's reading off by, degrees (gripper: percent).
    """

    def __init__(self, model: mujoco.MjModel, off: Sequence[float] = (0.0,) * len(JOINTS)) -> None:
        self._off = np.array(off)
        low, high = np.array([model.joint(joint).range for joint in JOINTS]).T
        self._gripper_low, self._gripper_span = low[5], high[5] - low[5]
        self.low = self.to_lerobot(low)
        self.high = self.to_lerobot(high)

    def to_lerobot(self, radians: np.ndarray) -> np.ndarray:
        """(6,) radians to (6,) float32 degrees, gripper in percent."""
        values = np.rad2deg(radians)
        values[5] = (radians[5] - self._gripper_low) / self._gripper_span * 100.0
        return np.asarray(values + self._off, dtype=np.float32)

    def to_mujoco(self, values: np.ndarray) -> np.ndarray:
        """(6,) degrees, gripper in percent, to (6,) radians, clipped to the joints' ranges."""
        clipped = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high) - self._off
        radians: np.ndarray = np.deg2rad(clipped)
        radians[5] = clipped[5] / 100.0 * self._gripper_span + self._gripper_low
        return radians
