"""What an owner asks for when starting a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zk0.errors import StageError


@dataclass(frozen=True)
class Request:
    """What a person asked for; None and empty leave it to the defaults.

    Attributes:
        data: ``local:PATH``, ``hub:OWNER/NAME@REVISION``, ``sim:TASK``, or a folder's path; None goes on with ``name``.
        name: The training's; the data's own by default.
        base: Starting policy, as ``policy.base`` in params.
        steps: Optimiser steps in all.
        batch: Frames a step.
        saves: How often the training is saved and judged on held-out episodes.
        learning_rate: Peak.
        device: cpu, cuda, mps or auto.
        fps: Frames a second to train at.
        cameras: Camera of the data to its name for the policy; None drops one.
        convention: How the joints' values are written, as ``data.conventions``.
        calibration: As ``data.calibrations``, for normalised values.
        leave_out: Episodes that neither train nor judge.
    """

    data: str | None = None
    name: str | None = None
    base: str | None = None
    steps: int | None = None
    batch: int | None = None
    saves: int | None = None
    learning_rate: float | None = None
    device: str | None = None
    fps: int | None = None
    cameras: Mapping[str, str | None] = field(default_factory=dict)
    convention: str | None = None
    calibration: str | None = None
    leave_out: Sequence[int] = ()


def camera_names(pairs: Sequence[str]) -> dict[str, str | None]:
    """``top=camera1`` as what it means; ``top=`` drops the camera.

    Raises:
        StageError: Not of that form.
    """
    names: dict[str, str | None] = {}
    for pair in pairs:
        own, equals, known = pair.partition("=")
        if not own or not equals:
            raise StageError(f"--camera takes DATA=POLICY, as in top=camera1, not '{pair}'")
        names[own] = known or None
    return names
