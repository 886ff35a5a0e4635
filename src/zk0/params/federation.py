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
    """What combines updates: fedavg, fedprox, fedavgm, fedadam, fedyogi, fedmedian, trimmed-mean, krum, multi-krum."""
    proximal_mu: float = Field(0.0, ge=0)
    """Weight of FedProx's proximal term (0 = off, as fedavg needs)."""
    proximal_schedule: Literal["constant", "linear", "trend"] = "constant"
    """Constant, linear (falls by round), or trend (rises and falls as held-out loss does)."""
    proximal_least_share: float = Field(0.1, ge=0, le=1)
    """Linear ends at this share of proximal_mu; trend stays between it and its inverse."""
    server_learning_rate: float | None = Field(None, gt=0)
    """Scales the server's step (null = 0.01 for fedadam and fedyogi, 1.0 for the others)."""
    server_schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """Constant, cosine (falls by round), or plateau (falls when held-out loss does not)."""
    server_least_share: float = Field(0.1, ge=0, le=1)
    """Smallest share of server_learning_rate that cosine and plateau come down to."""
    schedule_patience: int = Field(2, ge=1)
    """Plateau: rounds without a better loss; trend: rounds of falling loss in a row."""
    schedule_factor: float = Field(0.5, gt=0, lt=1)
    """Plateau and trend: times this when patience is over."""
    server_momentum: float = Field(0.9, ge=0, lt=1)
    """Of fedavgm; first-moment decay of fedadam and fedyogi."""
    server_beta2: float = Field(0.99, ge=0, lt=1)
    """Second-moment decay of fedadam and fedyogi."""
    server_tau: float = Field(1e-3, gt=0)
    """Adaptivity of fedadam and fedyogi."""
    trimmed_share: float = Field(0.2, ge=0, lt=0.5)
    """Trimmed-mean leaves out this share at each end."""
    byzantine: int = Field(1, ge=0)
    """Krum's and multi-krum's number of sites that may be malicious."""
    krum_margin: float = Field(0.0, ge=0)
    """Multi-krum leaves out only who is this many times as far off as the median (0 = byzantine sites, always)."""
    local: tuple[str, ...] = ()
    """Patterns of the tensors that each site keeps to itself, as "*layernorm*" ([] = all are shared)."""
    uplink: Codec = "fp32"
    """How updates travel: fp32, bf16, int8, int4; lossy ones carry their error over."""
    downlink: Codec = "fp32"
    """How the global model travels."""
    rounds: int = Field(6, ge=1)
    """Most rounds to run."""
    stop_after: int = Field(0, ge=0)
    """End after this many rounds without a better held-out loss (0 = never)."""
    stop_margin: float = Field(0.0, ge=0, lt=1)
    """Share of the best loss by which a round must be lower to be better (0 = by anything)."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the sites that train in a round, drawn anew each."""
    judges: float = Field(1.0, gt=0, le=1)
    """Share of the sites that judge the global model, the same ones all run."""
    weighting: Literal["examples", "equal", "loss"] = "examples"
    """How sites are averaged: by examples, equal, or by examples times held-out loss (loss)."""
    min_replies: float = Field(1.0, gt=0, le=1)
    """Share of the sites asked whose good reply a round needs."""
    timeout_s: float = Field(600.0, gt=0)
    """Longest wait for the replies of a round."""

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
    """Client-level differential privacy; see docs/privacy.md. How little one site's data may change in a release."""

    mode: Literal["off", "central", "site"] = "off"
    """Off, central (the server clips, averages and adds noise), or site (each site does)."""
    clip: Literal["fixed", "adaptive"] = "fixed"
    """Fixed, or adaptive (central: clip_norm follows a quantile of the sites' norms)."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest Euclidean norm of a site's update; adaptive starts here."""
    clip_quantile: float = Field(0.5, gt=0, lt=1)
    """Adaptive: share of the updates that are to stay below clip_norm."""
    clip_learning_rate: float = Field(0.2, gt=0)
    """Adaptive: how fast clip_norm follows."""
    noise_multiplier: float = Field(2.0, gt=0)
    """Noise on the sum of the updates, in clip_norms (site: on each site's update)."""
    report_noise_multiplier: float = Field(10.0, gt=0)
    """The same on losses and on the count of clipped updates."""
    loss_bound: float = Field(2.0, gt=0)
    """A site's losses count as no more than this."""
    target_epsilon: float = Field(8.0, gt=0)
    """The run ends before the round that would exceed it."""
    delta: float = Field(1e-5, gt=0, lt=1)
    """Chance that epsilon does not hold; well below 1 / sites."""

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


class EngineParams(Section):
    """Where sites train: it decides how long a run takes, not what comes of it; docs/scale.md."""

    name: Literal["inprocess", "ray"] = "inprocess"
    """Inprocess (one site after the other, in one process), or ray (workers side by side)."""
    workers: int = Field(0, ge=0)
    """Processes that train, each with a policy (0 = as there is room for, at most one a site)."""
    cpus: int = Field(0, ge=0)
    """CPU cores of a worker (0 = threads x policy.processes)."""
    gpus: float = Field(0.0, ge=0, le=1)
    """Share of a GPU of each of a worker's processes: with 0.25 four share one (0 = none)."""
    address: str | None = Field(None, pattern=r"^(auto|[\w.-]+:\d{1,5})$")
    """HOST:PORT of a Ray cluster, or auto (null = one on this machine, for the run alone)."""
