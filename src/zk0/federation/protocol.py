"""What server and sites say to each other, and how it is written into Flower's records."""

from __future__ import annotations

from typing import Any

from flwr.app import RecordDict
from pydantic import BaseModel, ConfigDict, ValidationError

from zk0.federation.header import SUMMARY as SUMMARY
from zk0.federation.header import Header, WireError, plain
from zk0.federation.header import write as write
from zk0.params import Codec, EvaluationParams, FeatureParams, PrivacyParams, TrainingParams

STATISTICS = "query.statistics"
# The value by which a message tells which model it speaks of, and a reply which model its site lacks.
MODEL = "model"
LACKS = "lacks"
TRAIN = "train"
EVALUATE = "evaluate"

DELTA = "delta"
STATS = "stats"
MOMENTS = "moments"


class Adapters(BaseModel):
    """Low-rank adapters that train in the policy's stead; see :mod:`zk0.policy.lora`.

    Attributes:
        rank: 0 = none.
        alpha: Their scale is alpha / rank.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = 0
    alpha: float = 32.0


class SiteTask(Header):
    """What a site needs to know to train or evaluate; the same for all sites but for the header.

    Attributes:
        used: Round of the site's last update that was averaged (0 = none): its residual and moments
            go on from there.
        keep: No earlier version of them will be asked for again.
        privacy: What the site is to do to what it sends, where its mode is ``site``.
    """

    seed: int
    base: str
    base_digest: str
    device: str
    adapters: Adapters = Adapters()
    features: FeatureParams = FeatureParams()
    training: TrainingParams
    decay_steps: int
    proximal_mu: float
    evaluation: EvaluationParams
    uplink: Codec = "fp32"
    privacy: PrivacyParams = PrivacyParams()
    used: int = 0
    keep: int = 0
    own_stats: bool = False
    detailed: bool = False


def read(content: RecordDict, kind: type[Header] = Header) -> tuple[Any, dict[str, Any]]:
    """Take the header and the plain values out of a message's content.

    Raises:
        WireError: They are missing or malformed.
    """
    fields = plain(content)
    values = fields.pop("values")
    try:
        return kind.model_validate(fields), values
    except ValidationError as error:
        raise WireError(f"the message's header is malformed: {error}") from error


def check_reply(header: Header, expected: Header) -> None:
    """Refuse a reply for another run or round, or in another site's name.

    Raises:
        WireError: Says which of the three differs.
    """
    for name in ("run", "round", "partition"):
        found, wanted = getattr(header, name), getattr(expected, name)
        if found != wanted:
            raise WireError(f"the reply is for {name} {found}, expected {wanted}")
