"""The names of LeRobot's features."""

from __future__ import annotations

STATE = "observation.state"
ACTION = "action"
IMAGES = "observation.images"
