"""What is trained, on what is kept of the frames, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from zk0.settings import Section


class PolicyParams(Section):
    """What is trained, and on which device."""

    base: str
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    lora_rank: int = Field(0, ge=0)
    lora_alpha: float = Field(32.0, gt=0)


class FeatureParams(Section):
    """What of a frame is computed once and kept, where vision encoder and language model are frozen."""

    cache: Literal["off", "tokens", "prefix"] = "tokens"
    dtype: Literal["bf16", "fp32"] = "bf16"
    block: int = Field(0, ge=0)
    ahead: bool = False


class TrainingParams(Section):
    """A site's local optimiser."""

    local_steps: int = Field(30, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    decay_steps: int = Field(0, ge=0)
    final_learning_rate: float = Field(5e-5, ge=0)
    weight_decay: float = Field(1e-10, ge=0)
    grad_clip: float = Field(10.0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    keep_moments: bool = False

    @model_validator(mode="after")
    def _decay_falls(self) -> TrainingParams:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        if self.decay_steps and self.decay_steps <= self.warmup_steps:
            raise ValueError(f"decay_steps {self.decay_steps} must be above warmup_steps {self.warmup_steps}")
        return self
