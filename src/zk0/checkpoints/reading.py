"""A checkpoint folder, read and checked: what LeRobot is given afterwards.

Processor files hold the steps that a SmolVLA's pipelines are made of, with their arguments; no other is ever imported.
LeRobot finds a step by the name it registered, or imports the class that the file names, and calls it with the
arguments that stand there. So both are known here beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
from pydantic import BaseModel, Field

from zk0.checkpoints.folder import CheckpointError, Folder, Strict, shown
from zk0.checkpoints.settings import VLM_FOLDER, Device, FeatureName, Features, Norms, Settings, Text, Vlm, VlmSettings
from zk0.checkpoints.vlm import WEIGHTS as VLM_WEIGHTS
from zk0.checkpoints.vlm import read_vlm
from zk0.checkpoints.weights import check_weights, read_state, shapes_of

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BEFORE = ("tokenizer_processor", "device_processor")
_AFTER = ("unnormalizer_processor",)


class _Nothing(Strict):
    pass


class _Rename(Strict):
    rename_map: Annotated[dict[FeatureName, FeatureName], Field(max_length=64)] = Field(default_factory=dict)


class _Tokenizer(Strict):
    tokenizer_name: Vlm
    max_length: Annotated[int, Field(ge=1, le=4096)] = 512
    task_key: Literal["task"] = "task"
    padding_side: Literal["left", "right"] = "right"
    padding: Literal["longest", "max_length"] = "max_length"
    truncation: bool = True


class _Device(Strict):
    device: Device = "cpu"
    float_dtype: Literal["float16", "float32", "float64", "bfloat16", "half", "float", "double"] | None = None


class _Normalizer(Strict):
    features: Features
    norm_map: Norms
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    normalize_observation_keys: Annotated[list[FeatureName], Field(max_length=64)] | None = None


_PROCESSOR = "lerobot.processor"
# Registered name to where LeRobot has its class, and to its arguments.
_STEPS: dict[str, tuple[str, type[BaseModel]]] = {
    "rename_observations_processor": (f"{_PROCESSOR}.rename_processor.RenameObservationsProcessorStep", _Rename),
    "to_batch_processor": (f"{_PROCESSOR}.batch_processor.AddBatchDimensionProcessorStep", _Nothing),
    "smolvla_new_line_processor": (f"{_PROCESSOR}.newline_task_processor.NewLineTaskProcessorStep", _Nothing),
    "tokenizer_processor": (f"{_PROCESSOR}.tokenizer_processor.TokenizerProcessorStep", _Tokenizer),
    "device_processor": (f"{_PROCESSOR}.device_processor.DeviceProcessorStep", _Device),
    "normalizer_processor": (f"{_PROCESSOR}.normalize_processor.NormalizerProcessorStep", _Normalizer),
    "unnormalizer_processor": (f"{_PROCESSOR}.normalize_processor.UnnormalizerProcessorStep", _Normalizer),
}
_NAMES = {place: name for name, (place, _) in _STEPS.items()}
_WITH_STATE = ("normalizer_processor", "unnormalizer_processor")


class Step(Strict):
    """One step as it stands in the file."""

    registry_name: Text | None = None
    class_: Annotated[Text | None, Field(alias="class")] = None
    config: dict[str, Any] = Field(default_factory=dict)
    state_file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]{0,190}\.safetensors$")] | None = None


class _File(Strict):
    name: Text = "pipeline"
    steps: Annotated[list[Any], Field(max_length=32)]


class KnownStep(TypedDict):
    """A step by its registered name, with arguments that it takes."""

    registry_name: str
    config: dict[str, Any]
    state_file: NotRequired[str]


class KnownSteps(TypedDict):
    """A processor file's content."""

    name: str
    steps: list[KnownStep]


@dataclass(frozen=True)
class Pipeline:
    """A processor file.

    Attributes:
        config: Its content, every step by its registered name.
        state: State file, without its ending, to statistics.
    """

    config: KnownSteps
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
    settings: Settings
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
    carried = folder.path / VLM_FOLDER if vlm else None
    return Checkpoint(folder.path, settings, before, after, carried)


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


def read_steps(folder: Folder, name: str, needed: tuple[str, ...]) -> KnownSteps:
    """A processor file, with every step by its registered name.

    Args:
        folder: The checkpoint's.
        name: The file's.
        needed: Steps without which the policy cannot be driven.

    Raises:
        CheckpointError: A step or an argument is none that a SmolVLA has, or a step is missing.
    """
    file = folder.parse(_File, folder.json(name), name)
    steps = [_step(folder, f"{name}, step {number}", content) for number, content in enumerate(file.steps)]
    for one in needed:
        if one not in [step["registry_name"] for step in steps]:
            raise folder.refused(name, f"no step {one}", f"the steps {', '.join(needed)} among others")
    return {"name": file.name, "steps": steps}


def _step(folder: Folder, where: str, content: Any) -> KnownStep:
    step = folder.parse(Step, content, where)
    name = _known_name(folder, where, step)
    config = folder.parse(_STEPS[name][1], step.config, f"{where} ({name})")
    if step.state_file and name not in _WITH_STATE:
        raise folder.refused(where, f"a state file of {name}", f"one of {' or '.join(_WITH_STATE)} only")
    found: KnownStep = {"registry_name": name, "config": config.model_dump(mode="json", exclude_unset=True)}
    if step.state_file:
        found["state_file"] = step.state_file
    return found


def _known_name(folder: Folder, where: str, step: Step) -> str:
    if (step.registry_name is None) == (step.class_ is None):
        raise folder.refused(where, "both or neither of class and registry_name", "one of them")
    if step.class_ is not None:
        if step.class_ not in _NAMES:
            raise _unknown(folder, where, f"the class {shown(step.class_)}")
        return _NAMES[step.class_]
    if step.registry_name not in _STEPS:
        raise _unknown(folder, where, f"the step {shown(step.registry_name)}")
    return step.registry_name


def _unknown(folder: Folder, where: str, found: str) -> CheckpointError:
    return folder.refused(where, found, f"one of the steps that a SmolVLA has: {', '.join(_STEPS)}")


def check_foreign(where: str, steps: list[dict[str, Any]]) -> None:
    """Refuse steps of any policy that would import something that is not LeRobot's, or trust a folder's code.

    Raises:
        CheckpointError: Names the step.
    """
    for number, step in enumerate(steps):
        place = step.get("class")
        if place is not None and "registry_name" not in step and not str(place).startswith("lerobot."):
            raise CheckpointError(
                f"{where}, step {number}, is refused: the class {shown(place)}; expected one of LeRobot's, or the "
                "registered name of a step whose package you installed. Nothing that a checkpoint names is imported"
            )
        if isinstance(step.get("config"), dict) and step["config"].get("trust_remote_code"):
            raise CheckpointError(
                f"{where}, step {number}, is refused: trust_remote_code, which runs a file of a repository; expected "
                "none. Set it to false and try again, or use another checkpoint"
            )
