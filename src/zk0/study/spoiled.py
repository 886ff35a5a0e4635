"""Recordings as a careless owner might hand them in: a study's own, with a fault in the newer half."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from zk0.data.frames import ACTION, STATE
from zk0.files import replaced_folder

_ROWS = Path("data/chunk-000/file-000.parquet")
_MOTOR_STEP_DEG = 360 / 4096
_CENTRE = 2048  # counts of a joint at 0 degrees


def spoiled(recording: Path, folder: Path) -> Path:
    """A copy of a recording whose newer episodes hold raw counts of the motors in place of degrees.

    Args:
        recording: Folder of a LeRobot dataset of one file.
        folder: Where the copy goes, unless it is there.

    Returns:
        The copy's folder.
    """
    if not folder.exists():
        with replaced_folder(folder) as temporary:
            shutil.copytree(recording, temporary, dirs_exist_ok=True)
            rows = pd.read_parquet(temporary / _ROWS)
            newer = (rows["episode_index"] > rows["episode_index"].max() // 2).to_numpy()
            for feature in (STATE, ACTION):
                values = np.stack(rows[feature].tolist())
                values[newer] = _CENTRE + np.rint(values[newer] / _MOTOR_STEP_DEG)
                rows[feature] = list(values)
            rows.to_parquet(temporary / _ROWS)
    return folder
