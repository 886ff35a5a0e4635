"""The folder ``vlm``: settings, processor and tokenizer of the vision-language model that a checkpoint carries.

transformers reads it. What of its files could name code, a class, another repository or a file is either absent here
or one of the values that SmolVLM has; a chat template is text that nothing here renders.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from zk0.checkpoints.folder import JSON_BYTES, Folder, Strict, shown
from zk0.checkpoints.settings import VLM_FOLDER, Text
from zk0.checkpoints.tokenizer import (
    TEMPLATE_BYTES,
    TOKENIZER_BYTES,
    Specials,
    Template,
    TokenizerSettings,
    check_tokenizer,
)
from zk0.checkpoints.vlm_settings import Numbers, Sizes, TokenIds, VlmSettings

_ImageProcessor = Literal[
    "SmolVLMImageProcessor", "SmolVLMImageProcessorFast", "SmolVLMImageProcessorPil", "Idefics3ImageProcessor"
]


class _Pictures(Strict):
    """Settings of an image or video processor: which class of SmolVLM, and numbers."""

    processor_class: Literal["SmolVLMProcessor"] = "SmolVLMProcessor"
    image_processor_type: _ImageProcessor | None = None
    feature_extractor_type: _ImageProcessor | None = None
    video_processor_type: Literal["SmolVLMVideoProcessor"] | None = None
    do_convert_rgb: bool | None = None
    do_image_splitting: bool | None = None
    do_normalize: bool | None = None
    do_pad: bool | None = None
    do_rescale: bool | None = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_sample_frames: bool | None = None
    return_metadata: bool | None = None
    return_row_col_info: bool | None = None
    crop_size: Sizes = None
    data_format: Literal["channels_first", "channels_last"] | None = None
    default_to_square: bool | None = None
    fps: Numbers = None
    image_mean: Numbers = None
    image_std: Numbers = None
    max_image_size: Sizes = None
    num_frames: Numbers = None
    resample: Numbers = None
    rescale_factor: Numbers = None
    size: Sizes = None
    size_divisor: Numbers = None
    video_sampling: Annotated[dict[Text, Sizes], Field(max_length=8)] | None = None


class _Processor(Strict):
    processor_class: Literal["SmolVLMProcessor"] = "SmolVLMProcessor"
    image_seq_len: Annotated[int, Field(ge=1, le=65_536)] | None = None
    image_processor: _Pictures | None = None
    video_processor: _Pictures | None = None
    chat_template: Template = None


class _Generation(Strict):
    from_model: Annotated[bool, Field(alias="_from_model_config")] = True
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    transformers_version: Text | None = None


class _Chat(Strict):
    chat_template: Template = None


_PARSED: dict[str, type[BaseModel]] = {
    "preprocessor_config.json": _Pictures,
    "video_preprocessor_config.json": _Pictures,
    "processor_config.json": _Processor,
    "tokenizer_config.json": TokenizerSettings,
    "special_tokens_map.json": Specials,
    "generation_config.json": _Generation,
    "chat_template.json": _Chat,
}
_TABLES = ("added_tokens.json", "vocab.json")
_TEXTS = {"merges.txt": TOKENIZER_BYTES, "chat_template.jinja": TEMPLATE_BYTES}
WEIGHTS = "model.safetensors"
_ALONE = ("README.md", "LICENSE", ".gitattributes")
_KNOWN = ("config.json", "tokenizer.json", *_PARSED, *_TABLES, *_TEXTS, WEIGHTS, *_ALONE)


def read_vlm(folder: Folder) -> VlmSettings:
    """Check every file of the folder.

    Raises:
        CheckpointError: A file is none that a SmolVLM has, or holds something else.
    """
    for name in folder.names(VLM_FOLDER):
        if name not in _KNOWN:
            raise folder.refused(f"{VLM_FOLDER}/{shown(name, quoted=False)}", "not known", f"{', '.join(_KNOWN)} only")
        if name in _PARSED:
            folder.parse(_PARSED[name], folder.json(f"{VLM_FOLDER}/{name}"), f"{VLM_FOLDER}/{name}")
        elif name in _TEXTS:
            folder.read(f"{VLM_FOLDER}/{name}", _TEXTS[name])
        elif name in _TABLES:
            _check_table(folder, f"{VLM_FOLDER}/{name}")
    check_tokenizer(folder, f"{VLM_FOLDER}/tokenizer.json")
    config = f"{VLM_FOLDER}/config.json"
    return folder.parse(VlmSettings, folder.json(config, JSON_BYTES), config)


def _check_table(folder: Folder, name: str) -> None:
    table = folder.json(name, TOKENIZER_BYTES)
    if not isinstance(table, dict) or not all(type(value) is int for value in table.values()):
        raise folder.refused(name, "no table of tokens", "tokens and their numbers")
