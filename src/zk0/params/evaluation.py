"""How models are judged, compared, tracked and promoted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from zk0.params.federation import Strategy
from zk0.settings import Section


class EvaluationParams(Section):
    """How models are judged, and what the safety check asks."""

    loss_draws: int = Field(2, ge=1)
    """Fixed draws of noise and time per held-out frame."""
    rollouts: int = Field(20, ge=0)
    """Closed-loop episodes per task and model (0 = none)."""
    max_steps: int = Field(40, ge=1)
    """Control steps after which a rollout has failed."""
    actions_per_look: int = Field(4, ge=1)
    """Actions executed of each predicted chunk."""
    seed: int = Field(100_000, ge=100_000)
    """First seed of the rollout scenes; no recording uses seeds from here on."""
    videos: int = Field(2, ge=0)
    """Rollouts per task and model saved as video (0 = none)."""
    step_factor: float = Field(1.5, ge=1)
    """An arm's longest step, as a multiple of the longest recorded one; longer ones are cut."""
    cut_share: float = Field(0.25, ge=0, lt=1)
    """Safety check: share of the steps that may be cut."""
    halved_share: float = Field(0.01, ge=0, lt=1)
    """Safety check: share of the steps that may be cut to less than half."""
    outside_deg: float = Field(2.0, ge=0)
    """Safety check: how far targets may lie outside the arm's build."""
    jerk: float = Field(2.5, gt=0)
    """Safety check: jerk of the targets, as a multiple of the recorded ones'."""
    perturbation: float = Field(0.05, ge=0, le=1)
    """Safety check: noise on images, share of their range (0 = none)."""
    perturbation_deg: float = Field(2.0, ge=0)
    """Safety check: noise on joint positions, as of play and calibration (0 = none)."""

    @model_validator(mode="after")
    def _enough_rollouts_to_film(self) -> EvaluationParams:
        if self.videos > self.rollouts:
            raise ValueError(f"videos {self.videos} is above rollouts {self.rollouts}")
        return self


class BenchmarkParams(Section):
    """What `zk0 benchmark` times."""

    steps: int = Field(20, ge=1)
    """Optimiser steps timed."""
    chunks: int = Field(30, ge=1)
    """Action chunks timed."""
    margin: float = Field(0.25, gt=0)
    """Share by which a quick benchmark may be worse than its last five before it is flagged."""


class StudyParams(Section):
    """`zk0 study`: what federation gains, by several training seeds; see docs/comparison.md."""

    training_seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """Decide batches, noise and adapters, not recordings and held-out episodes."""
    scenes: int = Field(100, ge=0)
    """Closed-loop episodes per task, model and training seed (0 = none)."""
    final_seed: int = Field(200_000, ge=100_000)
    """First scene of the results; choices are made on the scenes from evaluation.seed on."""
    personal_steps: int = Field(60, ge=4, multiple_of=4)
    """A site's own steps from the global model; the best of four stops counts."""
    robust_strategy: Strategy = "multi-krum"
    """Chosen before the robustness study runs, and shown beside the others."""
    variants: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Other federations to compare: name: {dotted param: value} ({} = none)."""

    @field_validator("training_seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("training seeds must be 0 or above and differ from each other")
        return seeds

    @field_validator("variants")
    @classmethod
    def _variants_change_training_only(cls, variants: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
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
    """When a tracked model becomes the champion, from which nightly runs start."""

    automatic: bool = True
    """Decide on every newly evaluated challenger; false = only by `zk0 promote`."""
    metric: Literal["success_rate", "action_error_deg"] = "success_rate"
    """What it must be better in, on the sites' tasks: success_rate or action_error_deg."""
    site_margin: float = Field(0.1, gt=0)
    """On no site may it be worse by more than this (share of rollouts, or degrees)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """One-sided, of both tests; champion and challenger meet the same scenes."""
    require_safe: bool = True
    """It must pass the safety check."""

    @model_validator(mode="after")
    def _margin_is_a_share(self) -> PromotionParams:
        if self.metric == "success_rate" and self.site_margin > 1:
            raise ValueError(
                f"site_margin {self.site_margin} is above 1; of success_rate it is a share (0.1 = 10 points)"
            )
        return self


class TrackingParams(Section):
    """Where MLflow puts runs and models."""

    experiment: str = "zk0"
    """MLflow experiment."""
    model: str = "zk0-smolvla"
    """Registered model."""
