"""A checkpoint folder, read and checked: what LeRobot is given afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zk0.checkpoints.folder import Folder
from zk0.checkpoints.settings import VLM_FOLDER, Settings, VlmSettings
from zk0.checkpoints.steps import read_steps
from zk0.checkpoints.vlm import WEIGHTS as VLM_WEIGHTS
from zk0.checkpoints.vlm import read_vlm
from zk0.checkpoints.weights import check_weights, read_state, shapes_of

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BEFORE = ("tokenizer_processor", "device_processor")
_AFTER = ("unnormalizer_processor",)


@dataclass(frozen=True)
class Pipeline:
    """A processor file.

    Attributes:
        config: Its content, every step by its registered name.
        state: State file, without its ending, to statistics.
    """

    config: dict[str, Any]
    state: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        folder: Where it really is.
        settings: Of config.json, which are LeRobot's SmolVLAConfig.
        preprocessor: Of observations.
        postprocessor: Of actions.
        vlm: The folder of the vision-language model that it carries; None where one of the Hub is named.
    """

    folder: Path
    settings: dict[str, Any]
    preprocessor: Pipeline
    postprocessor: Pipeline
    vlm: Path | None


def read_checkpoint(path: Path, weights: bool = True) -> Checkpoint:
    """Read a checkpoint as data; no weight is loaded.

    Args:
        path: Its folder.
        weights: Whether ``model.safetensors`` has to be there, and is looked into.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks settings or weights; says which.
        CheckpointError: It holds something that a SmolVLA checkpoint has not; names file and place.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no policy checkpoint at {path}: the folder does not exist")
    folder = Folder(path)
    _check_presence(folder, weights)
    folder.check_files()
    settings = folder.parse(Settings, folder.json(CONFIG), CONFIG)
    before = _pipeline(folder, PREPROCESSOR, _BEFORE)
    after = _pipeline(folder, POSTPROCESSOR, _AFTER)
    vlm = _vlm(folder, settings, before)
    if weights:
        check_weights(folder, WEIGHTS, settings, vlm)
    content = settings.model_dump(mode="json", exclude_unset=True) | {"pretrained_path": None}
    carried = folder.path / VLM_FOLDER if vlm else None
    return Checkpoint(folder.path, content, before, after, carried)


def _check_presence(folder: Folder, weights: bool) -> None:
    needed = (CONFIG, WEIGHTS) if weights else (CONFIG,)
    if missing := [name for name in needed if not folder.has(name)]:
        pickled = [name for name in folder.names(".") if name.endswith(_PICKLES)]
        told = f" ({pickled[0]} is not read: unpickling runs code)" if pickled else ""
        raise FileNotFoundError(f"{folder.named} is no policy checkpoint: {', '.join(missing)} not found in it{told}")
    if adapters := [name for name in _ADAPTERS if folder.has(name)]:
        advice = "Merge the adapters into the policy that they adapt, and save that"
        raise folder.refused(adapters[0], "adapters beside a policy", "a whole policy", advice)
    if old := [name for name in (PREPROCESSOR, POSTPROCESSOR) if not folder.has(name)]:
        advice = "Convert it with lerobot.processor.migrate_policy_normalization, or use a newer one"
        raise folder.refused(old[0], "missing, as in checkpoints before LeRobot 0.4", "a processor file", advice)


def _pipeline(folder: Folder, name: str, needed: tuple[str, ...]) -> Pipeline:
    config = read_steps(folder, name, needed)
    files = {step["state_file"]: step["config"]["features"] for step in config["steps"] if "state_file" in step}
    state = {file.removesuffix(".safetensors"): read_state(folder, file, features) for file, features in files.items()}
    return Pipeline(config, state)


def _vlm(folder: Folder, settings: Settings, before: Pipeline) -> VlmSettings | None:
    """The settings of the vision-language model that the checkpoint carries, if it names it."""
    names = [step["config"].get("tokenizer_name") for step in before.config["steps"]]
    if VLM_FOLDER not in (settings.vlm_model_name, *names):
        return None
    if not folder.has(f"{VLM_FOLDER}/{CONFIG}"):
        raise folder.refused(CONFIG, f"a model in {VLM_FOLDER}/, which is not there", f"{VLM_FOLDER}/{CONFIG}")
    vlm = read_vlm(folder)
    own = f"{VLM_FOLDER}/{VLM_WEIGHTS}"
    if folder.has(own):
        shapes_of(folder, own)
    elif settings.load_vlm_weights:
        raise folder.refused(CONFIG, "load_vlm_weights without weights in vlm/", f"load_vlm_weights false, or {own}")
    return vlm
