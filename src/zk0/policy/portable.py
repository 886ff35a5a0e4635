"""Checkpoints that load from wherever they are.

LeRobot's configuration names its vision-language model, and the preprocessor its tokenizer, by a
Hub id or a path. A checkpoint whose VLM is not on the Hub carries it in a subfolder, ``vlm``, and
names it so: relative to itself. ``install`` teaches LeRobot's two loaders to understand that name, and
to read a SmolVLA's folder as data first; it is called when :mod:`zk0.policy` is imported and by the
plugin that LeRobot's own commands discover.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.processor import DataProcessorPipeline

from zk0.checkpoints import read_checkpoint
from zk0.checkpoints.reading import check_foreign
from zk0.checkpoints.settings import VLM_FOLDER

_PREPROCESSOR = "policy_preprocessor.json"
_INSTALLED = "_zk0_reads_bundled_vlm"


def bundled_vlm(checkpoint: str | Path) -> Path | None:
    """The VLM folder that a checkpoint carries, if it does."""
    folder = Path(checkpoint) / VLM_FOLDER
    return folder.resolve() if (folder / "config.json").is_file() else None


def name_bundled_vlm(checkpoint: Path) -> None:
    """Make a saved checkpoint refer to its own ``vlm`` folder, whatever path it was saved under."""
    config_file = checkpoint / "config.json"
    config = json.loads(config_file.read_text())
    config["vlm_model_name"] = VLM_FOLDER
    config_file.write_text(json.dumps(config, indent=4))
    processor_file = checkpoint / _PREPROCESSOR
    processor = json.loads(processor_file.read_text())
    for step in processor["steps"]:
        if step.get("registry_name") == "tokenizer_processor":
            step["config"]["tokenizer_name"] = VLM_FOLDER
    processor_file.write_text(json.dumps(processor, indent=2))


def install() -> None:
    """Let LeRobot's loaders resolve a bundled VLM, and refuse what would run code; again, it changes nothing.

    A SmolVLA's folder is checked as zk0's own commands check it. Of any other policy, and of what LeRobot fetches
    from the Hub file by file, no step is imported that is not LeRobot's own or of a plugin that is installed.
    """
    if getattr(PreTrainedConfig, _INSTALLED, False):
        return
    load_config = PreTrainedConfig.from_pretrained.__func__
    load_pipeline = DataProcessorPipeline.from_pretrained.__func__
    validate_steps = DataProcessorPipeline._validate_loaded_config.__func__

    def config_from_pretrained(cls: type, /, pretrained_name_or_path: str | Path, **kwargs: Any) -> Any:
        config = load_config(cls, pretrained_name_or_path, **kwargs)
        if config.type == "smolvla" and Path(pretrained_name_or_path).is_dir():
            read_checkpoint(Path(pretrained_name_or_path))
        if getattr(config, "vlm_model_name", None) == VLM_FOLDER and (vlm := bundled_vlm(pretrained_name_or_path)):
            config.vlm_model_name = str(vlm)
        return config

    def pipeline_from_pretrained(
        cls: type,
        /,
        pretrained_model_name_or_path: str | Path,
        config_filename: str,
        *,
        overrides: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        vlm = bundled_vlm(pretrained_model_name_or_path)
        if vlm is not None and config_filename == _PREPROCESSOR:
            overrides = {"tokenizer_processor": {"tokenizer_name": str(vlm)}, **(overrides or {})}
        return load_pipeline(cls, pretrained_model_name_or_path, config_filename, overrides=overrides, **kwargs)

    def steps_validated(cls: type, model_id: str, loaded_config: Any, config_filename: str) -> None:
        validate_steps(cls, model_id, loaded_config, config_filename)
        check_foreign(f"{model_id}, {config_filename}", loaded_config["steps"])

    PreTrainedConfig.from_pretrained = classmethod(config_from_pretrained)
    DataProcessorPipeline.from_pretrained = classmethod(pipeline_from_pretrained)
    DataProcessorPipeline._validate_loaded_config = classmethod(steps_validated)
    setattr(PreTrainedConfig, _INSTALLED, True)
