"""Rounds, and what they may tell of a site."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from zk0.settings import Section

Codec = Literal["fp32", "bf16", "int8", "int4"]
Strategy = Literal[
    "fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedmedian", "trimmed-mean", "krum", "multi-krum"
]
# These withstand sites that send nonsense, and are no means.
ROBUST: tuple[Strategy, ...] = ("fedmedian", "trimmed-mean", "krum", "multi-krum")


class FederationParams(Section):
    """Rounds and how they are averaged."""

    strategy: Strategy = "fedavg"
    proximal_mu: float = Field(0.0, ge=0)
    proximal_schedule: Literal["constant", "linear", "trend"] = "constant"
    proximal_least_share: float = Field(0.1, ge=0, le=1)
    server_learning_rate: float | None = Field(None, gt=0)
    server_schedule: Literal["constant", "cosine", "plateau"] = "constant"
    server_least_share: float = Field(0.1, ge=0, le=1)
    schedule_patience: int = Field(2, ge=1)
    schedule_factor: float = Field(0.5, gt=0, lt=1)
    server_momentum: float = Field(0.9, ge=0, lt=1)
    server_beta2: float = Field(0.99, ge=0, lt=1)
    server_tau: float = Field(1e-3, gt=0)
    trimmed_share: float = Field(0.2, ge=0, lt=0.5)
    byzantine: int = Field(1, ge=0)
    uplink: Codec = "fp32"
    downlink: Codec = "fp32"
    rounds: int = Field(6, ge=1)
    stop_after: int = Field(0, ge=0)
    stop_margin: float = Field(0.0, ge=0, lt=1)
    fraction: float = Field(1.0, gt=0, le=1)
    weighting: Literal["examples", "equal"] = "examples"
    min_replies: float = Field(1.0, gt=0, le=1)
    timeout_s: float = Field(600.0, gt=0)

    @model_validator(mode="after")
    def _mu_belongs_to_fedprox(self) -> FederationParams:
        if self.strategy != "fedprox" and self.proximal_mu:
            raise ValueError(
                f"proximal_mu {self.proximal_mu} needs strategy fedprox; {self.strategy} has no proximal term"
            )
        if self.proximal_schedule != "constant" and not self.proximal_mu:
            raise ValueError(
                f"proximal_schedule {self.proximal_schedule} needs strategy fedprox with a proximal_mu above 0: there "
                "is nothing to schedule"
            )
        if self.proximal_schedule == "trend" and not self.proximal_least_share:
            raise ValueError(
                "proximal_schedule trend keeps proximal_mu between proximal_least_share and its inverse, so "
                "proximal_least_share must be above 0"
            )
        return self

    @model_validator(mode="after")
    def _stop_leaves_time_to_mend(self) -> FederationParams:
        if self.stop_margin and not self.stop_after:
            raise ValueError(f"stop_margin {self.stop_margin} needs a stop_after above 0")
        if self.server_schedule == "plateau" and 0 < self.stop_after <= self.schedule_patience:
            raise ValueError(
                f"stop_after {self.stop_after} ends the run before server_schedule plateau, which waits "
                f"schedule_patience {self.schedule_patience} rounds, lowers the rate: make it larger"
            )
        return self


class PrivacyParams(Section):
    """How little one site's data may change in what a run releases: client-level differential privacy."""

    mode: Literal["off", "central", "site"] = "off"
    clip: Literal["fixed", "adaptive"] = "fixed"
    clip_norm: float = Field(1.0, gt=0)
    clip_quantile: float = Field(0.5, gt=0, lt=1)
    clip_learning_rate: float = Field(0.2, gt=0)
    noise_multiplier: float = Field(2.0, gt=0)
    report_noise_multiplier: float = Field(10.0, gt=0)
    loss_bound: float = Field(2.0, gt=0)
    target_epsilon: float = Field(8.0, gt=0)
    delta: float = Field(1e-5, gt=0, lt=1)

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, mode: Any) -> Any:
        return "off" if mode is False else mode

    @model_validator(mode="after")
    def _sites_cannot_adapt(self) -> PrivacyParams:
        if self.mode == "site" and self.clip == "adaptive":
            raise ValueError(
                "clip adaptive needs a server that sees how many updates were clipped, and in mode site no one does; "
                "use clip fixed"
            )
        return self
