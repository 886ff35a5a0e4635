"""The pipeline's stages, as commands and the flow `federate` run them, and what each leaves.

DVC removes a stage's outputs before it runs the stage, and fails where one is missing afterwards. A stage that has
nothing for a folder, such as recordings where no source is simulated, leaves it empty.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from zk0.steps import Asks, Step

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


def _stage(name: str, stage: str, about: str, asks: Asks | None = None) -> Step[[Path, Params], None]:
    return Step(name, lambda root, params: run_stage(stage, root, params), about, stage, asks)


# By their names in the flow and in dvc.yaml.
VALIDATE = _stage("validate environment", "validate", "Check this machine, and resolve every source to a digest.")
PREPARE = _stage(
    "prepare data",
    "prepare",
    "Record or find the data, check it, split it into sites and held-out episodes.",
    asks="sources",
)
FEDERATE = _stage("run federation", "federate", "Run the federation, or go on where a stopped one ended.")
EVALUATE = _stage("evaluate", "evaluate", "Compare base and global model on held-out data and in closed loop.")
BENCHMARK = _stage("benchmark", "benchmark", "Measure step time, latency, bytes and memory on this machine.")
REPORT = _stage("report", "report", "Write the HTML report.")
# The tracking database may be busy or, when it is a server, away.
TRACK = _stage("track", "track", "Put the run into MLflow; a second time changes nothing.", asks="service")

STAGES = (VALIDATE, PREPARE, FEDERATE, EVALUATE, BENCHMARK, REPORT, TRACK)
