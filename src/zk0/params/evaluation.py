"""How models are judged, compared, tracked and promoted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from zk0.params.federation import Strategy
from zk0.settings import Section


class EvaluationParams(Section):
    """How models are judged."""

    loss_draws: int = Field(2, ge=1)
    rollouts: int = Field(20, ge=0)
    max_steps: int = Field(40, ge=1)
    actions_per_look: int = Field(4, ge=1)
    seed: int = Field(100_000, ge=100_000)
    videos: int = Field(2, ge=0)
    joint_margin_deg: float = Field(5.0, ge=0)
    velocity_factor: float = Field(1.5, ge=1)
    velocity_share: float = Field(0.05, ge=0, lt=1)
    velocity_limit: float = Field(3.0, ge=1)
    perturbation: float = Field(0.05, ge=0, le=1)
    perturbation_deg: float = Field(2.0, ge=0)

    @model_validator(mode="after")
    def _limit_is_above_factor(self) -> EvaluationParams:
        if self.velocity_limit < self.velocity_factor:
            raise ValueError(
                f"velocity_limit {self.velocity_limit} is below velocity_factor {self.velocity_factor}; the one is "
                "never passed, the other seldom"
            )
        return self

    @model_validator(mode="after")
    def _enough_rollouts_to_film(self) -> EvaluationParams:
        if self.videos > self.rollouts:
            raise ValueError(f"videos {self.videos} is above rollouts {self.rollouts}")
        return self


class BenchmarkParams(Section):
    """What is timed."""

    steps: int = Field(20, ge=1)
    chunks: int = Field(30, ge=1)
    margin: float = Field(0.25, gt=0)


class StudyParams(Section):
    """What `zk0 study` compares, and on which scenes."""

    training_seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    scenes: int = Field(100, ge=0)
    final_seed: int = Field(200_000, ge=100_000)
    personal_steps: int = Field(60, ge=4, multiple_of=4)
    robust_strategy: Strategy = "multi-krum"
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("training_seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("training seeds must be 0 or above and differ from each other")
        return seeds

    @field_validator("variants")
    @classmethod
    def _variants_change_training_only(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, changes in variants.items():
            if not name or not all(c.isalnum() or c in "-_." for c in name):
                raise ValueError(f"variant name '{name}' may hold letters, digits, '-', '_' and '.' only")
            for key in changes:
                if key.partition(".")[0] not in ("policy", "training", "federation", "privacy") or key == "policy.base":
                    raise ValueError(
                        f"variant '{name}' changes {key}; it may change policy (not its base), training, "
                        "federation and privacy, as in federation.uplink: data and evaluation are the same for all"
                    )
        return variants


class PromotionParams(Section):
    """When a new model takes the champion's place."""

    automatic: bool = True
    metric: Literal["success_rate", "action_error_deg"] = "success_rate"
    site_margin: float = Field(0.1, gt=0)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    require_safe: bool = True

    @model_validator(mode="after")
    def _margin_is_a_share(self) -> PromotionParams:
        if self.metric == "success_rate" and self.site_margin > 1:
            raise ValueError(
                f"site_margin {self.site_margin} is above 1; of success_rate it is a share (0.1 = 10 points)"
            )
        return self


class TrackingParams(Section):
    """Where MLflow puts it."""

    experiment: str = "zk0"
    model: str = "zk0-smolvla"
