"""``config.json``, the settings of a SmolVLA as LeRobot 0.6 writes them and earlier versions did; ``vlm/config.json``.

The second has the sizes of the vision-language model that a checkpoint carries, with transformers' defaults. Whatever
names code, a kernel, a quantisation or another repository is not known here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zk0.checkpoints.folder import Strict
from zk0.so100 import ACTION, STATE

VLM_FOLDER = "vlm"
Side = Annotated[int, Field(ge=1, le=4096)]
Layers = Annotated[int, Field(ge=-1, le=128)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=0, le=10**9)]
FeatureName = Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")]
Text = Annotated[str, Field(max_length=300)]
# Its own, in VLM_FOLDER, or by name one of the Hub's, of which LeRobot's default is the 500M.
Vlm = Literal[
    "vlm",
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda|mps|xpu)(:\d{1,3})?$")]
Norms = dict[
    Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"],
    Literal["MIN_MAX", "MEAN_STD", "IDENTITY", "QUANTILES", "QUANTILE10"],
]

Size = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1, le=128)]
TokenId = Annotated[int, Field(ge=-1, le=10_000_000)]
TokenIds = TokenId | Annotated[list[TokenId], Field(max_length=100)] | None
Dtype = Literal["float32", "bfloat16", "float16"] | None
Activation = Literal["silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu"]
Number = bool | Annotated[int, Field(ge=-(10**9), le=10**9)] | Annotated[float, Field(ge=-1e9, le=1e9)] | None
# Numbers only, so that whatever reads them finds no name in them.
Numbers = Number | Annotated[list[Number], Field(max_length=64)]
Sizes = Annotated[dict[Text, Numbers], Field(max_length=16)] | Numbers


class Feature(Strict):
    """One input or output: what it is, and its shape."""

    type: Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
    shape: Annotated[list[Side], Field(min_length=1, max_length=4)]


Features = Annotated[dict[FeatureName, Feature], Field(max_length=32)]


class RealTimeChunking(Strict):
    """How chunks are joined on the arm; see LeRobot's RTCConfig."""

    enabled: bool = True
    prefix_attention_schedule: Literal["ZEROS", "ONES", "LINEAR", "EXP"] = "LINEAR"
    max_guidance_weight: Positive = 10.0
    execution_horizon: Annotated[int, Field(ge=1, le=1000)] = 10
    debug: bool = False
    debug_maxlen: Annotated[int, Field(ge=1, le=10_000)] = 100


class Settings(Strict):
    """LeRobot's SmolVLAConfig, with bounds on what decides memory and time."""

    type: Literal["smolvla"]
    n_obs_steps: Annotated[int, Field(ge=1, le=16)] = 1
    input_features: Features
    output_features: Features
    normalization_mapping: Norms = Field(default_factory=dict)

    device: Device | None = None
    use_amp: bool = False
    use_peft: Literal[False] = False
    push_to_hub: bool = False
    repo_id: Text | None = None
    private: bool | None = None
    tags: Annotated[list[Text], Field(max_length=100)] | None = None
    license: Text | None = None
    pretrained_path: Text | None = None
    pretrained_revision: Text | None = None

    chunk_size: Annotated[int, Field(ge=1, le=1000)] = 50
    n_action_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    max_state_dim: Annotated[int, Field(ge=1, le=1024)] = 32
    max_action_dim: Annotated[int, Field(ge=1, le=1024)] = 32
    resize_imgs_with_padding: Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    empty_cameras: Annotated[int, Field(ge=0, le=8)] = 0
    adapt_to_pi_aloha: Literal[False] = False
    use_delta_joint_actions_aloha: Literal[False] = False
    tokenizer_max_length: Annotated[int, Field(ge=1, le=4096)] = 48
    num_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    use_cache: bool = True

    freeze_vision_encoder: bool = True
    train_expert_only: bool = True
    train_state_proj: bool = True
    optimizer_lr: Annotated[float, Field(ge=0, le=1e3)] = 1e-4
    optimizer_betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field(default_factory=list)
    optimizer_eps: Annotated[float, Field(ge=0, le=1)] = 1e-8
    optimizer_weight_decay: Annotated[float, Field(ge=0, le=1e3)] = 1e-10
    optimizer_grad_clip_norm: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    scheduler_warmup_steps: Steps = 1_000
    scheduler_decay_steps: Steps = 30_000
    scheduler_decay_lr: Annotated[float, Field(ge=0, le=1e3)] = 2.5e-6

    vlm_model_name: Vlm = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    load_vlm_weights: bool = False
    add_image_special_tokens: bool = False
    attention_mode: Literal["cross_attn", "self_attn"] = "cross_attn"
    prefix_length: Annotated[int, Field(ge=-1, le=8192)] = -1
    pad_language_to: Literal["longest", "max_length"] = "longest"
    num_expert_layers: Layers = -1
    num_vlm_layers: Layers = 16
    self_attn_every_n_layers: Layers = 2
    expert_width_multiplier: Annotated[float, Field(gt=0, le=4)] = 0.75
    min_period: Positive = 4e-3
    max_period: Positive = 4.0
    rtc_config: RealTimeChunking | None = None
    compile_model: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "max-autotune"

    @model_validator(mode="after")
    def _an_arms_policy(self) -> Self:
        state, action = self.input_features.get(STATE), self.output_features.get(ACTION)
        images = [one for one in self.input_features.values() if one.type == "VISUAL"]
        if state is None or state.type != "STATE" or len(state.shape) != 1 or state.shape[0] > self.max_state_dim:
            raise ValueError(f"{STATE} of type STATE and one axis of at most max_state_dim among input_features")
        if action is None or action.type != "ACTION" or len(action.shape) != 1 or action.shape[0] > self.max_action_dim:
            raise ValueError(f"{ACTION} of type ACTION and one axis of at most max_action_dim among output_features")
        if not images or any(len(one.shape) != 3 or one.shape[0] != 3 for one in images):
            raise ValueError("at least one camera of shape [3, height, width] among input_features")
        if self.n_action_steps > self.chunk_size:
            raise ValueError(f"n_action_steps of at most chunk_size, {self.chunk_size}")
        if self.num_expert_layers > 0 and self.num_vlm_layers > 0 and self.num_vlm_layers % self.num_expert_layers:
            raise ValueError(f"num_expert_layers that divides num_vlm_layers, {self.num_vlm_layers}")
        if self.min_period >= self.max_period:
            raise ValueError("min_period below max_period")
        return self


class _Model(Strict):
    """What transformers' configurations share."""

    architectures: Annotated[list[Text], Field(max_length=4)] | None = None
    dtype: Dtype = None
    torch_dtype: Dtype = None
    initializer_range: Share = 0.02
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
    rms_norm_eps: Share = 1e-6
    rope_parameters: Rope | None = None
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] | None = None
    rope_scaling: None = None
    attention_bias: bool = False
    attention_dropout: Share = 0.0
    mlp_bias: bool = False
    pretraining_tp: Literal[1] = 1
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    # Of the published SmolVLM2, read by nobody any more.
    is_llama_config: bool = True
    neftune_noise_alpha: Share = 0.0
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
    layer_norm_eps: Share = 1e-6
    attention_dropout: Share = 0.0
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
    """``vlm/config.json``, of all that a SmolVLM has."""

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
