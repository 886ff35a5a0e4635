"""Run a stage of the pipeline, and leave every output that dvc.yaml names.

DVC removes a stage's outputs before it runs the stage, and fails where one is missing afterwards. A stage that has
nothing for a folder, such as recordings where no source is simulated, leaves it empty.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zk0.params import Params

# Stage to those of its outputs that are folders; files are written whatever there is to say.
FOLDERS = {
    "prepare": ("data/recordings", "data/manifests"),
    "federate": ("results/federation", "checkpoints"),
    "evaluate": ("results/rollouts",),
}


def run_stage(name: str, root: Path, params: Params) -> None:
    """Run a stage by its name, as every orchestrator does.

    Args:
        name: Of dvc.yaml and of the module beside this one.
        root: Project folder.
        params: The run's.
    """
    importlib.import_module(f"zk0.pipeline.{name}").run(root, params)
    for folder in FOLDERS.get(name, ()):
        (root / folder).mkdir(parents=True, exist_ok=True)
