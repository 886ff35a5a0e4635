"""The folder ``vlm``: settings, processor and tokenizer of the vision-language model that a checkpoint carries.

transformers reads it. What of its files could name code, a class, another repository or a file is either absent here
or one of the values that SmolVLM has; a chat template is text that nothing here renders.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from zk0.checkpoints.folder import Folder, Strict, shown
from zk0.checkpoints.settings import VLM_FOLDER, Numbers, Sizes, Text, TokenIds, VlmSettings

TOKENIZER_BYTES = 32 << 20
TEMPLATE_BYTES = 64 << 10
Template = Annotated[str, Field(max_length=TEMPLATE_BYTES)] | None
_WHERE_PATTERNS_ARE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_ImageProcessor = Literal[
    "SmolVLMImageProcessor", "SmolVLMImageProcessorFast", "SmolVLMImageProcessorPil", "Idefics3ImageProcessor"
]


class _Token(Strict):
    content: Text
    type_: Annotated[Literal["AddedToken"] | None, Field(alias="__type")] = None
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False
    special: bool = False


Token = Text | _Token | None
Tokens = Annotated[list[Token], Field(max_length=1000)] | Annotated[dict[Text, Token], Field(max_length=1000)] | None


class Specials(Strict):
    """Tokens with a meaning, by their role; as in ``special_tokens_map.json``."""

    bos_token: Token = None
    eos_token: Token = None
    unk_token: Token = None
    pad_token: Token = None
    sep_token: Token = None
    cls_token: Token = None
    mask_token: Token = None
    image_token: Token = None
    video_token: Token = None
    fake_image_token: Token = None
    global_image_token: Token = None
    end_of_utterance_token: Token = None
    additional_special_tokens: Tokens = None
    extra_special_tokens: Tokens = None


class TokenizerSettings(Specials):
    """``tokenizer_config.json``: one of the classes that need no code, and no file elsewhere."""

    tokenizer_class: (
        Literal["TokenizersBackend", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast"] | None
    ) = None
    processor_class: Literal["SmolVLMProcessor"] | None = None
    backend: Literal["tokenizers"] = "tokenizers"
    add_prefix_space: bool = False
    added_tokens_decoder: Annotated[dict[Text, _Token], Field(max_length=10_000)] = Field(default_factory=dict)
    clean_up_tokenization_spaces: bool = False
    chat_template: Template = None
    errors: Literal["replace", "strict", "ignore"] = "replace"
    is_local: bool = False
    local_files_only: bool = False
    legacy: bool | None = None
    model_max_length: Annotated[int, Field(ge=1)] | Annotated[float, Field(ge=1)] | None = None
    padding_side: Literal["left", "right"] = "right"
    truncation_side: Literal["left", "right"] = "right"
    split_special_tokens: bool = False
    vocab_size: Numbers = None


class _Bpe(Strict):
    """What the library tokenizers has beyond SmolVLM's is not known: on some of it, it ends the process."""

    type: Literal["BPE"]
    vocab: Annotated[dict[str, Annotated[int, Field(ge=0, le=10_000_000)]], Field(max_length=1_000_000)]
    merges: Annotated[list[str | list[str]], Field(max_length=1_000_000)]
    unk_token: Text | None = None
    dropout: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _AddedToken(_Token):
    id: Annotated[int, Field(ge=0, le=10_000_000)]


class _TokenizerFile(Strict):
    version: Text = "1.0"
    truncation: dict[Text, Numbers | Text] | None = None
    padding: dict[Text, Numbers | Text | dict[Text, Numbers]] | None = None
    added_tokens: Annotated[list[_AddedToken], Field(max_length=10_000)]
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None
    model: _Bpe


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
    return folder.parse(VlmSettings, folder.json(config), config)


def _check_table(folder: Folder, name: str) -> None:
    table = folder.json(name, TOKENIZER_BYTES)
    if not isinstance(table, dict) or not all(type(value) is int for value in table.values()):
        raise folder.refused(name, "no table of tokens", "tokens and their numbers")


def check_tokenizer(folder: Folder, name: str) -> None:
    """A tokenizer without patterns: a regular expression can be made to run for ever on a short sentence.

    Raises:
        CheckpointError: It has one, or is no tokenizer as SmolVLM has it.
    """
    content = folder.parse(_TokenizerFile, folder.json(name, TOKENIZER_BYTES), name)
    for part in _WHERE_PATTERNS_ARE:
        if _has_pattern(getattr(content, part)):
            raise folder.refused(f"{name}, {part}", "a regular expression", "none, as in SmolVLM's")


def _has_pattern(value: Any) -> bool:
    if isinstance(value, dict):
        return "Regex" in value or any(map(_has_pattern, value.values()))
    return isinstance(value, list) and any(map(_has_pattern, value))
