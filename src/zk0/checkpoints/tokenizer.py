"""A tokenizer's files: words, numbers and the settings that SmolVLM's has, no pattern and no file elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from zk0.checkpoints.folder import Folder, Strict
from zk0.checkpoints.settings import Text
from zk0.checkpoints.vlm_settings import Numbers

TOKENIZER_BYTES = 32 << 20
TEMPLATE_BYTES = 64 << 10
Template = Annotated[str, Field(max_length=TEMPLATE_BYTES)] | None
_WHERE_PATTERNS_ARE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


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
