"""What the simulated owners do with their arms: verb, object, colour and region of the table.

``SITES`` are four owners whose tasks differ in every one of these. ``UNSEEN`` is a task that no
owner has. ``PUBLIC`` is the mixture on which the base policy is pretrained: other verbs, shapes
and colours, on the parts of the table that none of the owners use. So the base knows how to find
things and reach them, and the owners teach it what to do there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zk0.words import nearest_hint

Verb = Literal["touch", "push-away", "push-left", "push-right", "pull", "point", "press"]
Shape = Literal["cube", "ball", "cylinder", "capsule", "block", "bar", "disc", "plate"]

_PHRASES: dict[Verb, str] = {
    "touch": "touch the {}",
    "push-away": "push the {} away",
    "push-left": "push the {} to the left",
    "push-right": "push the {} to the right",
    "pull": "pull the {} closer",
    "point": "point at the {}",
    "press": "press the {}",
}

# The shoulder's pan axis stands here; regions are polar around it (metres, base frame).
PAN_AXIS_X_M = 0.0388

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.08, 0.08),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.20, 0.85),
    "magenta": (0.80, 0.10, 0.65),
    "purple": (0.45, 0.15, 0.70),
    "orange": (0.95, 0.45, 0.05),
    "cyan": (0.05, 0.70, 0.75),
    "brown": (0.42, 0.24, 0.10),
    "black": (0.05, 0.05, 0.05),
    "pink": (0.95, 0.55, 0.70),
}


@dataclass(frozen=True)
class Region:
    """A ring sector of the table: pan angle in degrees (left is positive), reach in metres."""

    pan_deg: tuple[float, float]
    reach_m: tuple[float, float]

    def sample(self, rng: np.random.Generator) -> tuple[float, float]:
        """Draw (x, y) in the base frame, uniform in angle and reach."""
        angle = math.radians(rng.uniform(*self.pan_deg))
        reach = rng.uniform(*self.reach_m)
        return PAN_AXIS_X_M + reach * math.cos(angle), reach * math.sin(angle)

    def contains(self, x: float, y: float) -> bool:
        """Whether a point of the table lies in the sector."""
        angle = math.degrees(math.atan2(y, x - PAN_AXIS_X_M))
        reach = math.hypot(x - PAN_AXIS_X_M, y)
        return self.pan_deg[0] <= angle <= self.pan_deg[1] and self.reach_m[0] <= reach <= self.reach_m[1]


@dataclass(frozen=True)
class SimTask:
    """One task of the embedded arm.

    Several shapes or colours mean that each episode draws one. ``avoids`` are regions where the
    object is never put, so that the public mixture and the owners' tables stay apart.
    """

    name: str
    verb: Verb
    shapes: tuple[Shape, ...]
    colours: tuple[str, ...]
    region: Region
    avoids: tuple[Region, ...] = ()

    def place(self, rng: np.random.Generator) -> tuple[float, float]:
        """Draw the object's place, outside the avoided regions."""
        while True:
            x, y = self.region.sample(rng)
            if not any(region.contains(x, y) for region in self.avoids):
                return x, y

    def sentence(self, shape: str, colour: str) -> str:
        """The instruction the policy is given."""
        return _PHRASES[self.verb].format(f"{colour} {shape}")

    def direction(self, x: float, y: float) -> np.ndarray | None:
        """Unit vector (2,) in which an object at (x, y) is to be moved, or None if it is not."""
        outward = np.array([x - PAN_AXIS_X_M, y]) / math.hypot(x - PAN_AXIS_X_M, y)
        leftward = np.array([-outward[1], outward[0]])
        return {"push-away": outward, "pull": -outward, "push-left": leftward, "push-right": -leftward}.get(self.verb)


SITES: tuple[SimTask, ...] = (
    SimTask("push-red-cube-left", "push-left", ("cube",), ("red",), Region((8, 34), (0.19, 0.26))),
    SimTask("push-green-ball-right", "push-right", ("ball",), ("green",), Region((-34, -8), (0.19, 0.26))),
    SimTask("pull-blue-bar", "pull", ("bar",), ("blue",), Region((-16, 16), (0.19, 0.24))),
    SimTask("press-magenta-disc", "press", ("disc",), ("magenta",), Region((-16, 16), (0.22, 0.28))),
)
UNSEEN = SimTask("push-purple-cylinder-left", "push-left", ("cylinder",), ("purple",), Region((-20, 20), (0.20, 0.25)))

_TABLE = Region((-58, 58), (0.17, 0.30))
_PUBLIC_COLOURS = ("orange", "cyan", "brown", "black", "pink")
_KEPT_FREE = tuple(task.region for task in SITES)
PUBLIC: tuple[SimTask, ...] = (
    SimTask("public-touch", "touch", ("capsule", "cylinder"), _PUBLIC_COLOURS, _TABLE, _KEPT_FREE),
    SimTask("public-push", "push-away", ("cylinder",), _PUBLIC_COLOURS, Region((-58, 58), (0.17, 0.24)), _KEPT_FREE),
    SimTask("public-point", "point", ("plate",), _PUBLIC_COLOURS, _TABLE, _KEPT_FREE),
)

TASKS: dict[str, SimTask] = {task.name: task for task in (*SITES, UNSEEN, *PUBLIC)}


def find_task(name: str) -> SimTask:
    """The task of that name.

    Raises:
        ValueError: No such task; the message names the nearest one.
    """
    if name not in TASKS:
        raise ValueError(f"there is no simulated task '{name}'{nearest_hint(name, TASKS)}")
    return TASKS[name]
