"""The table: to physics one plane without end, to the cameras pieces of which they are shown those in sight.

The lamp's gleam on it is computed at the corners of squares, and a renderer goes through all of them, in sight or not.
In software that was two thirds of a picture's time, and nearly all of the plain room's table is out of sight.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import mujoco
import numpy as np

from zk0.data.sim.rooms import Room

# MuJoCo lays squares in pairs from a plane's middle, and not more than so many, so those of a large plane are larger.
_PAIR_M, _MOST_PAIRS = 0.04, 99
_NEAR_X_M, _NEAR_Y_M = (-0.6, 1.0), (-1.0, 1.0)  # one piece, beyond which only the plain room's table goes
_PLAIN_EXTENT_M = 0.6058601  # of the plain room as it would be with one piece: what is nearer than 1% is not pictured
_SHOWN, _HIDDEN = 0, 3  # groups of geoms, as MuJoCo shows them by default
_PLANE = mujoco.mjtGeom.mjGEOM_PLANE
_CORNERS = np.array([(-1, -1, 0), (-1, 1, 0), (1, -1, 0), (1, 1, 0)])


def add_table(spec: mujoco.MjSpec, room: Room) -> None:
    """Put the table of a room into a specification."""
    behind, ahead, aside = room.edges_m
    pair = max(_PAIR_M, (behind + ahead) / _MOST_PAIRS, 2 * aside / _MOST_PAIRS)
    spec.worldbody.add_geom(
        name="table", type=_PLANE, size=[ahead, aside, pair / 4], friction=[0.6, 0.005, 1e-4], group=_HIDDEN
    )
    along, across = _pieces(-behind, ahead, _NEAR_X_M, pair), _pieces(-aside, aside, _NEAR_Y_M, pair)
    if len(along) > 1:  # the far pieces would count
        spec.stat.extent = _PLAIN_EXTENT_M
    for (back, front), (right, left) in product(along, across):
        spec.worldbody.add_geom(
            type=_PLANE,
            pos=[(front + back) / 2, (left + right) / 2, 0],
            size=[(front - back) / 2, (left - right) / 2, pair / 4],  # what MuJoCo calls spacing is half a square
            rgba=[*np.clip(room.table, 0.0, 1.0), 1],
            group=_SHOWN,
            contype=0,
            conaffinity=0,
        )


def _pieces(low: float, high: float, near: tuple[float, float], pair: float) -> list[tuple[float, float]]:
    """Where pieces begin and end, so that each has the very squares that the table has there as one piece."""
    cuts = [low + pair * round((place - low) / pair) for place in near if low < place < high]
    return list(pairwise([low, *cuts, high]))


def show_in_sight(model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> None:
    """Show a camera the pieces of the table that may be in its picture, and hide the others.

    Args:
        model: Of which the pieces' groups are set.
        data: Says where the camera is.
        camera: Its name; its picture is square.
    """
    number = model.camera(camera).id
    pieces = np.flatnonzero((model.geom_type == _PLANE) & (model.geom_contype == 0))
    corners = model.geom_pos[pieces, None] + _CORNERS * model.geom_size[pieces, None]
    right, up, back = np.moveaxis((corners - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3), -1, 0)
    wide = -back * math.tan(math.radians(model.cam_fovy[number]) / 2)  # half a picture's edge, as far away as a corner
    beyond = np.stack([right > wide, -right > wide, up > wide, -up > wide, back > 0])
    model.geom_group[pieces] = np.where(beyond.all(axis=-1).any(axis=0), _HIDDEN, _SHOWN)
