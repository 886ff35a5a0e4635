"""Trainings: one owner's data, one policy, a folder ``trainings/NAME`` in which a federation of one site runs.

A training is a project in small: its ``params.yaml`` names one site, and the pipeline's own stages run in its folder.
Nothing heavy is imported here, so that what cannot be is refused at once.
"""

from __future__ import annotations

from zk0.workspaces.defaults import Request, camera_names
from zk0.workspaces.folder import ROUND_STEPS, STEPS, TRAININGS, Training, open_training, removed_if_refused

__all__ = [
    "ROUND_STEPS",
    "STEPS",
    "TRAININGS",
    "Request",
    "Training",
    "camera_names",
    "open_training",
    "removed_if_refused",
]
