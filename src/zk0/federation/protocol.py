"""What server and sites say to each other, and how it is written into Flower's records; no tensors are needed for it.

Every message and reply has a :class:`Header`, which binds it to run, round and site, and plain values beside it, as
JSON in one record of Flower's; tensors travel in records of their own, see :mod:`.wire`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from flwr.app import ConfigRecord, Error, Message, RecordDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from zk0.params import Codec, EvaluationParams, FeatureParams, PrivacyParams, TrainingParams
from zk0.words import printable, said

# Of messages and what they hold; raised when a server and a site of two releases would misunderstand each other.
# 1, which messages did not tell: until November 2026. 2: a task holds how models are judged as driven. 3: and which
# tensors a site keeps to itself.
PROTOCOL = 3

# Kinds of message.
SUMMARY = "query.summary"
STATISTICS = "query.statistics"
TRAIN = "train"
EVALUATE = "evaluate"

# Records of a message.
HEADER = "header"
DELTA = "delta"
STATS = "stats"
MOMENTS = "moments"

# The value by which a message tells which model it speaks of, and a reply which model its site lacks.
MODEL = "model"
LACKS = "lacks"

# A manifest of a hundred thousand episodes is 700 KB; read, it becomes some 30 times as much at most.
LONGEST_HEADER = 1 << 20
ERROR_CODE = 100
# Of a reply that the server's own Grid makes in a site's stead: its reason is no word of the site's.
GRID_CODE = 101


class WireError(ValueError):
    """A message's content is not what it must be; names the record or tensor."""


class Header(BaseModel):
    """Goes with every message and reply, and binds it to run, round and site.

    Attributes:
        run: Config digest of the run.
        round: 0 before the first.
        partition: The site's index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[str, Field(max_length=100)]
    round: Annotated[int, Field(ge=0, le=10**9)]
    partition: Annotated[int, Field(ge=-1, le=10**9)]


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
        local: Patterns of the tensors that the site keeps to itself.
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
    local: tuple[str, ...] = ()
    privacy: PrivacyParams = PrivacyParams()
    used: int = 0
    keep: int = 0


def write(content: RecordDict, header: Header, **values: Any) -> None:
    """Put a header and further plain values into a message's content."""
    content[HEADER] = ConfigRecord(
        {"json": json.dumps({"protocol": PROTOCOL, **header.model_dump(mode="json"), "values": values})}
    )


def plain(content: RecordDict) -> dict[str, Any]:
    """A message's header and values, as plain values that nobody has looked at yet.

    Its length is bounded before anything is read, and its depth by the reader.

    Raises:
        WireError: There is none, or it is no table in JSON.
    """
    record = content.get(HEADER)
    text = record.get("json") if isinstance(record, ConfigRecord) else None
    if not isinstance(text, str):
        raise WireError("the message has no header")
    if len(text) > LONGEST_HEADER:
        raise WireError(f"the message's header has {len(text)} characters; at most {LONGEST_HEADER} were expected")
    try:
        fields = from_json(text.encode())
    except ValueError as error:
        raise WireError(f"the message's header is malformed: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("values"), dict):
        raise WireError("the message's header is malformed: a table with a table 'values' was expected")
    if (spoken := fields.pop("protocol", 1)) != PROTOCOL:
        raise WireError(
            f"the message is of protocol {printable(str(spoken), 20)}, and this side speaks {PROTOCOL}: server and "
            "sites need releases of zk0 that speak the same; update the older one"
        )
    return fields


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


def error_reply(message: Message, error: Exception) -> Message:
    """The reply to a message that could not be served."""
    return Message(Error(ERROR_CODE, printable(f"{type(error).__name__}: {error}")), reply_to=message)


def failure(reply: Message, site: str) -> str:
    """Why a site's error reply tells that it failed; in few words, and marked as the site's where they are its own."""
    reason = str(reply.error.reason or "it gave no reason")
    return printable(reason) if reply.error.code == GRID_CODE else said(site, reason)
