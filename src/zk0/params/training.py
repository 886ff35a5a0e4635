"""What is trained, on what is kept of the frames, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from zk0.settings import Section


class PolicyParams(Section):
    """What is trained, and on which device."""

    base: str
    """A checkpoint folder, hub:REPO@REVISION, mlflow:MODEL/VERSION or @ALIAS, or random:nano."""
    warm_start: float = Field(1.0, ge=0, le=1)
    """Where a nightly run starts, from policy.base (0) to the champion (1)."""
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    """Where it trains and runs: cpu, cuda, mps, or auto."""
    processes: int = Field(1, ge=1)
    """Processes that share each step of a site, a GPU each; run digests count it: it decides results' last bits."""
    lora_rank: int = Field(0, ge=0)
    """Train low-rank adapters of the action expert instead of all of it (0 = all of it)."""
    lora_alpha: float = Field(32.0, gt=0)
    """Adapters' scale is alpha / rank."""
    denoising_steps: int = Field(0, ge=0, le=1000)
    """That make noise an action chunk; checkpoints carry them (0 = as the base has it)."""

    @field_validator("base")
    @classmethod
    def _without_local(cls, base: str) -> str:
        """``local:PATH``, as sources have it, is the folder."""
        return base.removeprefix("local:")


class FeatureParams(Section):
    """What never changes of a frame while vision encoder and language model are frozen. It is computed once."""

    cache: Literal["off", "tokens", "prefix"] = "tokens"
    """Off, tokens (image tokens), or prefix (keys and values; faster, 12 times the disk)."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """As stored: bf16, or fp32 for twice the disk and no rounding."""
    block: int = Field(0, ge=0)
    """Frames of an episode encoded together (0 = by device and image size)."""
    ahead: bool = False
    """Compute all before the first round, not when a round first needs them."""


class TrainingParams(Section):
    """A site's local optimiser and its steps."""

    local_steps: int = Field(30, ge=1)
    """Optimiser steps of a site in a round."""
    batch: int = Field(16, ge=1)
    """Frames a step."""
    learning_rate: float = Field(5e-4, gt=0)
    """AdamW's, at its peak."""
    warmup_steps: int = Field(10, ge=0)
    """On the global step, which counts on over rounds (0 = none)."""
    decay_steps: int = Field(0, ge=0)
    """Cosine decay ends at this global step (0 = rounds x local_steps)."""
    final_learning_rate: float = Field(5e-5, ge=0)
    """The same at the end of the decay."""
    weight_decay: float = Field(1e-10, ge=0)
    """AdamW's (0 = none)."""
    grad_clip: float = Field(10.0, ge=0)
    """Largest gradient norm (0 = off)."""
    smoothness: float = Field(0.0, ge=0)
    """Weight of the error of the actions' acceleration, beside that of the loss (0 = off)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the arithmetic: fp32, or bf16 (mixed: weights stay fp32)."""
    keep_moments: bool = False
    """Carry the optimiser's moments from round to round, on the site."""

    @model_validator(mode="after")
    def _decay_falls(self) -> TrainingParams:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        if self.decay_steps and self.decay_steps <= self.warmup_steps:
            raise ValueError(f"decay_steps {self.decay_steps} must be above warmup_steps {self.warmup_steps}")
        return self
