"""The rooms in which the embedded arm stands: what differs between owners though they do the same.

A room decides how the top camera looks, what it sees around the object, how the arm's joints are calibrated, and how
late pictures and motion are. It never decides the scene: that belongs to the episode's seed, so one seed puts the same
object in the same place of every room, and results in two rooms are paired.

The wrist camera stays as it is: its mount is printed to one drawing. Recordings run at one rate everywhere, as an owner
sets ``--dataset.fps`` to what the federation asks for (or to a multiple, see ``data.every``); what owners cannot set is
how often their cameras deliver, and so how old the picture is that LeRobot's ``read_latest`` gives them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from zk0.data.sim.tasks import COLOURS
from zk0.words import nearest_hint

# A person sets the camera up by a picture of how it should stand: a hand's breadth off, and sloping by less than shows.
PLACE_M = 0.04
TURN_DEG = 4.0
# Homes are lit with 50 to 5,000 lux, and a camera's automatic exposure leaves about a stop below and half a one above;
# its white balance leaves lamps a tenth too warm or too cold.
STOPS = (-1.0, 0.5)
WARMTH = 0.1
LAMP_SLOPE = 0.8  # sideways per metre down: a lamp hangs within 40 degrees of straight above
# LeRobot puts a joint's zero in the middle of the range through which its owner moved it by hand: who misses one stop
# by 8 degrees is off by 4. The wrist's roll has no stops, so its zero is where the hand held it, and the gripper's
# percent count from its ends.
JOINTS_DEG = (4.0, 4.0, 4.0, 4.0, 8.0, 4.0)
# Webcams give 30 pictures a second, half of that in dim light, where exposures are long, and 10 over a shared hub.
CAMERA_FPS = (30, 15, 10)
DELAY_S = 0.05  # of the USB driver (up to 16 ms), the bus, and the servo until it moves
SHADE = 0.1  # of each of the object's channels: another maker's red
# An arm is clamped to the table's edge or stands further in; in front and at the sides the objects need their place.
EDGES_M = ((0.05, 0.45, 0.45), (0.6, 1.0, 1.0))
_STEP_S = 0.1
_APART = 0.25  # in RGB: nobody works on a table on which the object cannot be seen

# Factor to the room's fields that belong to it: each can be set alone, see Room.of.
FACTORS: dict[str, tuple[str, ...]] = {
    "camera place": ("camera_m",),
    "camera turn": ("camera_deg",),
    "light": ("light", "lamp"),
    "table": ("table",),
    "background": ("background", "edges_m"),
    "object": ("shade",),
    "joints": ("joints",),
    "camera rate": ("frame_s",),
    "delay": ("delay_s",),
}
NAMED = 1_000_000  # sources name rooms below it; those above are free for whoever must not have met an owner's
UNMET = 10_000_000  # pretraining has rooms from NAMED on and below it; those above are free to be judged in

_Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Room:
    """Where an arm stands; without arguments the room of every source that names none.

    Attributes:
        camera_m: By how much the top camera is moved, metres in the base frame.
        camera_deg: By how much it is turned about its own axes: tilted, panned, rolled.
        light: Factor of all light, for red, green and blue.
        lamp: Direction in which the lamp shines.
        table: The table's colour, 0 to 1.
        edges_m: Where the table ends behind the arm, in front of it, and on both sides.
        background: Colour of what is beyond.
        shade: Added to the object's colour.
        joints: What a joint's reading is off by, degrees (gripper: percent); targets are off by the same.
        frame_s: Seconds from one picture of the cameras to the next, of which the last one is seen (0 = one whenever
            somebody looks).
        delay_s: Seconds until the arm follows a new target.
    """

    camera_m: _Triple = (0.0, 0.0, 0.0)
    camera_deg: _Triple = (0.0, 0.0, 0.0)
    light: _Triple = (1.0, 1.0, 1.0)
    lamp: _Triple = (0.1, 0.1, -1.0)
    table: _Triple = (0.86, 0.84, 0.80)
    edges_m: _Triple = (2.0, 2.0, 2.0)
    background: _Triple = (0.0, 0.0, 0.0)
    shade: _Triple = (0.0, 0.0, 0.0)
    joints: tuple[float, ...] = (0.0,) * 6
    frame_s: float = 0.0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.delay_s < _STEP_S:
            raise ValueError(f"a room's delay must be from 0 to below {_STEP_S} s, a control step (got {self.delay_s})")

    @classmethod
    def of(cls, number: int, sizes: Mapping[str, float] | None = None) -> Room:
        """The room of that number.

        Args:
            number: Decides everything, 0 or above.
            sizes: Factor to its size, as a multiple of how far rooms go; what is not named stays as in ``Room()``.
                None = all factors at 1. Beyond 1 the table still ends no nearer than in any room.

        Raises:
            ValueError: No such factor; names the nearest.

        Example:
            >>> from dataclasses import replace
            >>> half = Room.of(3, {"delay": 0.5})
            >>> half == replace(Room(), delay_s=half.delay_s), half.delay_s < Room.of(3).delay_s
            (True, True)
        """
        wanted = dict.fromkeys(FACTORS, 1.0) if sizes is None else sizes
        if strange := sorted(set(wanted) - set(FACTORS)):
            raise ValueError(f"rooms have no factor '{strange[0]}'{nearest_hint(strange[0], FACTORS)}")
        drawn, plain = _draw(number), cls()
        changes: dict[str, Any] = {
            field: _between(getattr(plain, field), drawn[field], size)
            for factor, size in wanted.items()
            for field in FACTORS[factor]
        }
        if "edges_m" in changes:
            changes["edges_m"] = tuple(max(pair) for pair in zip(changes["edges_m"], EDGES_M[0], strict=True))
        return cls(**changes)


PLAIN = Room()


@cache
def room_of(number: int | None) -> Room:
    """The room that a source names; the plain one where it names none.

    Raises:
        ValueError: A source could not name it.
    """
    if number is not None and not 0 <= number < NAMED:
        raise ValueError(f"a room is a whole number from 0 to {NAMED - 1} (got {number})")
    return PLAIN if number is None else Room.of(number)


def _draw(number: int) -> dict[str, np.ndarray | float]:
    """Every field of a room at full size; each draw belongs to the number and to its place in this order."""
    rng = np.random.default_rng([number, 1515])
    warmth, stops = rng.uniform(-WARMTH, WARMTH), rng.uniform(*STOPS)
    return {
        "light": 2.0**stops * np.array([1 + warmth, 1.0, 1 - warmth]),
        "lamp": np.append(rng.uniform(-LAMP_SLOPE, LAMP_SLOPE, size=2), -1.0),
        "camera_m": rng.uniform(-PLACE_M, PLACE_M, size=3),
        "camera_deg": rng.uniform(-TURN_DEG, TURN_DEG, size=3),
        "background": np.array(colorsys.hsv_to_rgb(*rng.uniform((0, 0, 0.1), (1, 0.4, 0.9)))),
        "edges_m": rng.uniform(*EDGES_M),
        "shade": rng.uniform(-SHADE, SHADE, size=3),
        "joints": rng.uniform(-1, 1, size=6) * JOINTS_DEG,
        "frame_s": 1.0 / float(rng.choice(CAMERA_FPS)),
        "delay_s": float(rng.uniform(0, DELAY_S)),
        "table": _table(rng),
    }


def _table(rng: np.random.Generator) -> np.ndarray:
    """Three in four are white, grey or of some wood, the others have a cloth or a mat; on none is an object lost."""
    while True:
        hue = rng.uniform(0.05, 0.12) if rng.random() < 0.75 else rng.random()
        colour = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0, 0.55), rng.uniform(0.3, 0.95)))
        if min(float(np.linalg.norm(colour - np.array(paint))) for paint in COLOURS.values()) > _APART:
            return colour


def _between(plain: float | tuple[float, ...], drawn: float | np.ndarray, size: float) -> float | tuple[float, ...]:
    """So much of the way from the plain value to the drawn one; rounded, so that every machine has the same room."""
    value = np.round(np.asarray(plain) + size * (np.asarray(drawn) - np.asarray(plain)), 6)
    return float(value) if value.ndim == 0 else tuple(value.tolist())
