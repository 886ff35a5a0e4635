"""params.yaml as frozen, checked objects.

Loading refuses unknown keys, values out of range and settings that contradict each other, all
before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from zk0.files import BadFileError
from zk0.params.data import Convention, DataParams, PartitionParams
from zk0.params.evaluation import BenchmarkParams, EvaluationParams, PromotionParams, StudyParams, TrackingParams
from zk0.params.federation import ROBUST, Codec, EngineParams, FederationParams, PrivacyParams, Strategy
from zk0.params.training import FeatureParams, PolicyParams, TrainingParams
from zk0.settings import ParamsError, Section, explained, read_settings

__all__ = [
    "ROBUST",
    "Codec",
    "Convention",
    "DataParams",
    "EngineParams",
    "EvaluationParams",
    "FeatureParams",
    "FederationParams",
    "Params",
    "ParamsError",
    "PartitionParams",
    "PrivacyParams",
    "PromotionParams",
    "Strategy",
    "TrackingParams",
    "TrainingParams",
    "load_params",
    "parse_params",
    "with_changes",
]

PARAMS_FILE = Path("params.yaml")


class Params(Section):
    """Everything in params.yaml."""

    seed: int = Field(1, ge=0)
    """Decides everything random: recordings, splits, batches, noise."""
    threads: int = Field(2, ge=1)
    """CPU threads for training and evaluation; results depend on it in the last bit."""
    policy: PolicyParams
    data: DataParams
    features: FeatureParams = FeatureParams()
    training: TrainingParams = TrainingParams()
    federation: FederationParams = FederationParams()
    engine: EngineParams = EngineParams()
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
        if mode != "off" and federation.local:
            raise ValueError(
                f"federation.local keeps tensors at home, and privacy.mode {mode} would put noise in their place: use "
                "one of the two"
            )
        if mode == "central" and federation.strategy in ROBUST:
            raise ValueError(
                f"privacy.mode central needs a strategy that averages, not {federation.strategy}: how far one site can "
                "move a median, a trimmed mean or a choice has no bound that the noise could hide. Use fedavg, "
                "fedprox, fedavgm, fedadam or fedyogi, or privacy.mode site, whose updates any strategy may combine"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_the_device(self) -> Params:
        if self.engine.name == "ray" and self.policy.device == "cuda" and not self.engine.gpus:
            raise ValueError(
                "engine.gpus is 0, and Ray hides every GPU from a worker with none, but policy.device is cuda; give "
                "engine.gpus, such as 1.0, or 0.25 for four workers a GPU"
            )
        if self.engine.name == "ray" and self.policy.processes > 1 and 0 < self.engine.gpus < 1:
            raise ValueError(
                f"engine.gpus is {self.engine.gpus:g}, but each of policy.processes {self.policy.processes} needs a "
                "GPU of its own; set engine.gpus to 1.0"
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
        ParamsError: The file is missing, cannot be read, is not YAML, or breaks a rule. Every problem is listed,
            with the rule and the value; an unknown key comes with its nearest neighbour.
    """
    try:
        content = read_settings(path)
    except FileNotFoundError as error:
        raise ParamsError(f"{path} not found; run from the project's root, or `zk0 profile use demo`") from error
    except BadFileError as error:
        raise ParamsError(str(error)) from error
    return parse_params(content, str(path))


def parse_params(content: Mapping[str, object], origin: str = "params") -> Params:
    """Check a params mapping; see :func:`load_params`."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(explained(error, Params, origin)) from error


def with_changes(params: Params, changes: Mapping[str, object]) -> Params:
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
