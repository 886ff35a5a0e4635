"""What the sites' recordings show the arm doing, and the longest step that an arm may take because of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from zk0.so100 import JOINTS

_LEAST = 0.1  # degrees: a joint that no recording moves may still hold its place


@dataclass(frozen=True)
class Limits:
    """What the sites' recordings show the arm doing, in LeRobot's units.

    Attributes:
        low: (6,) smallest recorded joint position or target.
        high: (6,) largest.
        step: (6,) largest distance between a target and the position it was given in.
        change: (6,) largest distance between a target and the one before it.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    change: np.ndarray

    @classmethod
    def of(cls, content: Mapping[str, Sequence[float]]) -> Limits:
        """What :meth:`content` gave.

        Raises:
            ValueError: Something is missing, as in a run of an earlier version.
        """
        if missing := [field.name for field in fields(cls) if field.name not in content]:
            raise ValueError(f"the recorded limits lack {', '.join(missing)}; run `zk0 federate` again")
        return cls(**{field.name: np.array(content[field.name]) for field in fields(cls)})

    def content(self) -> dict[str, list[float]]:
        """The limits by name, as plain lists of six numbers."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    def longest_steps(self, factor: float) -> dict[str, float]:
        """LeRobot's ``max_relative_target``: joint to the farthest target from where it is, degrees (gripper: percent).

        Args:
            factor: Multiple of the longest recorded step.
        """
        steps = np.maximum(factor * self.step, _LEAST)
        return {joint: round(float(step), 1) for joint, step in zip(JOINTS, steps, strict=True)}
