"""params.yaml as frozen, checked objects.

Loading refuses unknown keys, values out of range and settings that contradict each other, all
before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zk0.data.joints import ARM_JOINTS
from zk0.explain import explained
from zk0.names import check_site_name, nearest_hint
from zk0.sources import Source

PARAMS_FILE = Path("params.yaml")

Codec = Literal["fp32", "bf16", "int8", "int4"]
Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedmedian", "trimmed-mean", "krum"]
Convention = Literal["degrees", "normalised", "so100-old"]
Names = dict[str, str | None]  # a camera to the name the policy knows it by; None leaves it out


class ParamsError(ValueError):
    """params.yaml says something that cannot be; the message lists every problem."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PolicyParams(_Section):
    """What is trained, and on which device."""

    base: str
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    lora_rank: int = Field(0, ge=0)
    lora_alpha: float = Field(32.0, gt=0)


class FeatureParams(_Section):
    """What of a frame is computed once and kept, where vision encoder and language model are frozen."""

    cache: Literal["off", "tokens", "prefix"] = "tokens"
    dtype: Literal["bf16", "fp32"] = "bf16"
    block: int = Field(0, ge=0)
    ahead: bool = False


class PartitionParams(_Section):
    """How one source is split over many sites."""

    scheme: Literal["none", "equal", "sizes", "tasks", "by-task"] = "none"
    sites: int = Field(4, ge=1)
    alpha: float = Field(0.5, gt=0)


class DataParams(_Section):
    """Whose demonstrations, and how they are split."""

    sites: dict[str, str] = Field(min_length=1)
    unseen: dict[str, str] = {}
    cameras: dict[str, Names | str | None] = {}
    missing_cameras: Literal["refuse", "empty"] = "refuse"
    every: dict[str, int] = {}
    conventions: dict[str, Convention] = {}
    calibrations: dict[str, str | dict[str, float]] = {}
    partition: PartitionParams = PartitionParams()
    held_out: float = Field(0.2, gt=0, lt=1)
    episodes: int = Field(30, ge=2)
    noise: float = Field(0.25, ge=0, le=1)
    fps: int = Field(10, ge=1)
    decoded_limit_bytes: int = Field(2_000_000_000, ge=0)

    @field_validator("sites", "unseen")
    @classmethod
    def _sources_parse(cls, sources: dict[str, str]) -> dict[str, str]:
        for name, text in sources.items():
            check_site_name(name)
            Source.parse(text)
        return sources

    @field_validator("every")
    @classmethod
    def _every_counts_from_one(cls, every: dict[str, int]) -> dict[str, int]:
        for name, count in every.items():
            if count < 1:
                raise ValueError(f"every '{name}' is {count}; it takes every n-th frame, so it must be 1 or more")
        return every

    @field_validator("calibrations")
    @classmethod
    def _ranges_are_of_joints(cls, given: dict[str, str | dict[str, float]]) -> dict[str, str | dict[str, float]]:
        for name, ranges in given.items():
            if isinstance(ranges, str):
                continue
            if strange := sorted(set(ranges) - set(ARM_JOINTS)):
                hint = nearest_hint(strange[0], ARM_JOINTS)
                raise ValueError(f"calibrations '{name}' has a range for '{strange[0]}'{hint}")
            if missing := [joint for joint in ARM_JOINTS if joint not in ranges]:
                raise ValueError(f"calibrations '{name}' has no range for {', '.join(missing)}")
            if wrong := {joint: degrees for joint, degrees in ranges.items() if not 0 < degrees <= 360}:
                raise ValueError(f"calibrations '{name}': a range is above 0 and up to 360 degrees, not {wrong}")
        return given

    @model_validator(mode="after")
    def _settings_are_of_sources(self) -> DataParams:
        """What is said of one source must name one that there is."""
        known = [*self.sites, *self.unseen]
        of_sites = {name: names for name, names in self.cameras.items() if isinstance(names, dict)}
        settings: dict[str, Mapping[str, Any]] = {
            "cameras": of_sites,
            "every": self.every,
            "conventions": self.conventions,
            "calibrations": self.calibrations,
        }
        for setting, of_source in settings.items():
            if strange := sorted(set(of_source) - set(known)):
                raise ValueError(
                    f"{setting} names '{strange[0]}', which is neither a site nor unseen"
                    f"{nearest_hint(strange[0], known)}"
                )
        for name in self.calibrations:
            if self.conventions.get(name) != "normalised":
                raise ValueError(
                    f"calibrations '{name}' serves to turn normalised joint values into degrees; say conventions: "
                    f"{{{name}: normalised}} as well"
                )
        return self

    def camera_names(self, name: str) -> Names:
        """What a source's cameras are called by the policy: what is said of all sources, then what of this one."""
        of_all = {camera: known for camera, known in self.cameras.items() if not isinstance(known, dict)}
        own = self.cameras.get(name)
        return of_all | (own if isinstance(own, dict) else {})

    @model_validator(mode="after")
    def _one_source_when_partitioned(self) -> DataParams:
        if self.partition.scheme != "none" and len(self.sites) != 1:
            raise ValueError(
                f"partition.scheme '{self.partition.scheme}' splits one source, but sites names {len(self.sites)}"
            )
        if overlap := set(self.sites) & set(self.unseen):
            raise ValueError(f"{', '.join(sorted(overlap))} cannot be both a site and unseen")
        return self


class TrainingParams(_Section):
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


class FederationParams(_Section):
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


class PrivacyParams(_Section):
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


class EvaluationParams(_Section):
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


class BenchmarkParams(_Section):
    """What is timed."""

    steps: int = Field(20, ge=1)
    chunks: int = Field(30, ge=1)
    margin: float = Field(0.25, gt=0)


class StudyParams(_Section):
    """What `zk0 study` compares, and on which scenes."""

    training_seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    scenes: int = Field(100, ge=0)
    final_seed: int = Field(200_000, ge=100_000)
    personal_steps: int = Field(60, ge=4, multiple_of=4)
    robust_strategy: Strategy = "trimmed-mean"
    variants: dict[str, dict[str, Any]] = {}

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


class PromotionParams(_Section):
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


class TrackingParams(_Section):
    """Where MLflow puts it."""

    experiment: str = "zk0"
    model: str = "zk0-smolvla"


class Params(_Section):
    """Everything in params.yaml."""

    seed: int = Field(1, ge=0)
    threads: int = Field(2, ge=1)
    policy: PolicyParams
    data: DataParams
    features: FeatureParams = FeatureParams()
    training: TrainingParams = TrainingParams()
    federation: FederationParams = FederationParams()
    privacy: PrivacyParams = PrivacyParams()
    evaluation: EvaluationParams = EvaluationParams()
    benchmark: BenchmarkParams = BenchmarkParams()
    study: StudyParams = StudyParams()
    tracking: TrackingParams = TrackingParams()
    promotion: PromotionParams = PromotionParams()

    @model_validator(mode="after")
    def _one_site_is_bounded(self) -> Params:
        """Under privacy no site may count for more than another, nor by more than its clipped update."""
        mode, federation = self.privacy.mode, self.federation
        if mode != "off" and federation.weighting != "equal":
            raise ValueError(
                f"privacy.mode {mode} needs federation.weighting equal: weights by {federation.weighting} tell of a "
                "site's data, and let it count for more than its clipped update"
            )
        if mode == "central" and federation.strategy in ("fedmedian", "trimmed-mean", "krum"):
            raise ValueError(
                f"privacy.mode central needs a strategy that averages, not {federation.strategy}: how far one site can "
                "move a median, a trimmed mean or a choice has no bound that the noise could hide. Use fedavg, "
                "fedprox, fedavgm, fedadam or fedyogi, or privacy.mode site, whose updates any strategy may combine"
            )
        return self

    @model_validator(mode="after")
    def _final_scenes_are_new(self) -> Params:
        used = range(self.evaluation.seed, self.evaluation.seed + max(self.evaluation.rollouts, self.study.scenes))
        final = range(self.study.final_seed, self.study.final_seed + self.study.scenes)
        if final.start < used.stop and used.start < final.stop:
            raise ValueError(
                f"study.final_seed {final.start} with {len(final)} scenes meets the development scenes {used.start} to "
                f"{used.stop - 1} that begin at evaluation.seed; results need scenes on which nothing was chosen"
            )
        return self

    @property
    def decay_steps(self) -> int:
        """Global step at which the learning rate has come down."""
        return self.training.decay_steps or self.federation.rounds * self.training.local_steps


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: The file is missing, is not YAML, or breaks a rule. Every problem is listed,
            with the rule and the value; an unknown key comes with its nearest neighbour.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ParamsError(f"{path} not found; run from the project's root, or `zk0 profile use demo`") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path} must be a mapping of sections, but holds {type(content).__name__}")
    return parse_params(content, str(path))


def parse_params(content: dict[str, Any], origin: str = "params") -> Params:
    """Check a params mapping; see :func:`load_params`."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(explained(error, Params, origin)) from error


def with_changes(params: Params, changes: Mapping[str, Any]) -> Params:
    """Params with some settings changed, and checked again.

    Args:
        params: What to start from.
        changes: Dotted names to values, as in ``{"federation.uplink": "int8"}``.

    Raises:
        ParamsError: See :func:`load_params`.
    """
    content = params.model_dump()
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ParamsError(f"'{dotted}' is no setting: '{section}' holds a value")
        place[key] = value
    return parse_params(content, "changes")
