"""Three robot owners with other cameras, rates and joint conventions, and what their preparation gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from so100_recordings import (
    as_lerobot,
    motor_steps,
)

from zk0.data.load import load_frames
from zk0.data.manifest import Manifest
from zk0.errors import DataError
from zk0.files import read_json
from zk0.params import Params
from zk0.so100 import JOINTS

TOP, WRIST = "observation.images.top", "observation.images.wrist"
STEPS = [[motor_steps(frames, 10 * site + k) for k, frames in enumerate((16, 13))] for site in range(3)]
LENGTHS = [16, 13]
MAIN = [f"main_{joint}" for joint in JOINTS]

Prepare = Callable[..., Params]


def episodes(site: int, mode: str) -> list[np.ndarray]:
    return [as_lerobot(steps, mode) for steps in STEPS[site]]


def refusal(run: Prepare, sites: dict[str, str], **data: Any) -> str:
    with pytest.raises(DataError) as refused:
        run(sites, **data)
    return str(refused.value)


def all_frames(manifest: Manifest, root: Path) -> Any:
    return load_frames(manifest, root, (*manifest.train_episodes, *manifest.held_out_episodes), 0)


def source(root: Path, name: str) -> dict[str, Any]:
    (entry,) = [entry for entry in read_json(root / "results" / "data.json")["sources"] if entry["name"] == name]
    return dict(entry)
