"""``vlm/config.json``: the sizes of the vision-language model that a checkpoint carries.

Defaults are transformers'. Whatever names code, a kernel, a quantisation or another repository is not known here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zk0.checkpoints.folder import Strict
from zk0.checkpoints.settings import Side, Text

Size = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1, le=128)]
Fraction = Annotated[float, Field(ge=0, le=1)]
TokenId = Annotated[int, Field(ge=-1, le=10_000_000)]
TokenIds = TokenId | Annotated[list[TokenId], Field(max_length=100)] | None
Dtype = Literal["float32", "bfloat16", "float16"] | None
Activation = Literal["silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu"]
Number = bool | Annotated[int, Field(ge=-(10**9), le=10**9)] | Annotated[float, Field(ge=-1e9, le=1e9)] | None
# Numbers only, so that whatever reads them finds no name in them.
Numbers = Number | Annotated[list[Number], Field(max_length=64)]
Sizes = Annotated[dict[Text, Numbers], Field(max_length=16)] | Numbers


class _Model(Strict):
    """What transformers' configurations share."""

    architectures: Annotated[list[Text], Field(max_length=4)] | None = None
    dtype: Dtype = None
    torch_dtype: Dtype = None
    initializer_range: Fraction = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    transformers_version: Text | None = None
    name_or_path: Annotated[Literal["", "None"], Field(alias="_name_or_path")] = ""
    attn_autoset: Annotated[bool, Field(alias="_attn_implementation_autoset")] = False
    flash: Annotated[bool, Field(alias="_flash_attn_2_enabled")] = False


class Rope(Strict):
    """Rotary position embeddings."""

    rope_type: Literal["default"] = "default"
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] = 10_000.0


class TextSettings(_Model):
    """The language model; defaults are transformers'."""

    model_type: Literal["llama"] = "llama"
    hidden_size: Size = 4096
    intermediate_size: Size = 11_008
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    head_dim: Annotated[int, Field(ge=2, le=1024)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32_000
    max_position_embeddings: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    hidden_act: Activation = "silu"
    rms_norm_eps: Fraction = 1e-6
    rope_parameters: Rope | None = None
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] | None = None
    rope_scaling: None = None
    attention_bias: bool = False
    attention_dropout: Fraction = 0.0
    mlp_bias: bool = False
    pretraining_tp: Literal[1] = 1
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    # Of the published SmolVLM2, read by nobody any more.
    is_llama_config: bool = True
    neftune_noise_alpha: Fraction = 0.0
    pixel_shuffle_factor: Numbers = None
    qk_layer_norms: Literal[False] = False
    rope_interleaved: Literal[False] = False
    use_resampler: Literal[False] = False

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size that is a multiple of num_attention_heads")
        if self.num_attention_heads % (self.num_key_value_heads or self.num_attention_heads):
            raise ValueError("num_attention_heads that is a multiple of num_key_value_heads")
        return self


class VisionSettings(_Model):
    """The vision encoder; defaults are transformers'."""

    model_type: Literal["smolvlm_vision"] = "smolvlm_vision"
    hidden_size: Size = 1152
    intermediate_size: Size = 3072
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 16
    num_channels: Literal[3] = 3
    image_size: Side = 224
    patch_size: Annotated[int, Field(ge=1, le=256)] = 32
    hidden_act: Activation = "gelu_pytorch_tanh"
    layer_norm_eps: Fraction = 1e-6
    attention_dropout: Fraction = 0.0
    max_image_size: Sizes = None
    size: Sizes = None
    use_base_siglip: bool = False

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.patch_size > self.image_size:
            raise ValueError("patch_size of at most image_size")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size that is a multiple of num_attention_heads")
        return self


class VlmSettings(_Model):
    """``vlm/config.json``."""

    model_type: Literal["smolvlm"]
    text_config: TextSettings
    vision_config: VisionSettings
    scale_factor: Annotated[int, Field(ge=1, le=16)] = 2
    image_token_id: TokenId = 128_257
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    image_seq_len: Numbers = None
    vocab_size: Numbers = None
    use_reentrant_checkpointing: bool = False
