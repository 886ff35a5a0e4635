"""What sites answer: each kind of reply is parsed once, here, by a strict model with bounds.

A site's word is data from outside. Whatever is wrong with it, too large, too deep, of another type or beyond its
bounds, is one kind of error, of that site alone; and every word that a site says is made fit to be shown here, so
that files, terminals and trackers downstream need not ask where a text came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from flwr.app import Message, RecordDict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from zk0.data.manifest import Manifest
from zk0.federation import codecs, protocol, wire
from zk0.federation.statistics import Moments
from zk0.params import Codec, Params, PrivacyParams
from zk0.policy.trainable import Tensors
from zk0.words import fault, printable

_MANY = 10**9
_MOST_LOSS = 1e6  # a model with such a loss is of no use, and a larger one might overflow a sum
_NOISES = 8.0  # standard deviations that noise never reaches
_RECORDED = ("examples", "train_loss", "train_s", "learning_rate", "held_out_loss", "evaluate_s", "epsilon")

Share = Annotated[float, Field(ge=0, le=1e6)]
Seconds = Annotated[float, Field(ge=0, le=_MANY)]
Count = Annotated[int, Field(ge=1, le=_MANY)]
Epsilon = Annotated[float | None, Field(ge=0, le=_MANY, description="of a site that keeps a ledger of its own")]


def _sound(loss: float, info: ValidationInfo) -> float:
    """No mean of squares is below 0, but a noised one may be; who adds noise tells what it has spent."""
    if loss < 0 and info.data.get("epsilon") is None:
        raise ValueError("at least 0 was expected of a site that adds no noise")
    return loss


# Far wider than any loss that counts: whose update made the model useless, others must be able to say what it loses.
Loss = Annotated[float, Field(ge=-1e30, le=1e30, description="mean flow-matching loss"), AfterValidator(_sound)]


class ReplyError(protocol.WireError):
    """A site's reply is not what it must be, or there is none; the reason is fit to be shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason))


@dataclass(frozen=True)
class Reply:
    """A site's answer, parsed; its tensors are as they must be, but not decoded yet.

    Attributes:
        site: Its name.
        partition: Its number.
        values: What it tells besides tensors.
        content: The message's.
        bytes_up: Of its tensors.
        bytes_down: Of the tensors that it was sent for it.
    """

    site: str
    partition: int
    values: dict[str, Any]
    content: RecordDict
    bytes_up: int
    bytes_down: int

    def update(self, params: Params) -> tuple[Tensors, float]:
        """The update delta_k, decoded, and its weight: n_k, or 1 where ``federation.weighting`` is equal.

        Raises:
            WireError: It tells of more examples than were asked for, or its tensors are damaged.
        """
        told, asked = self.values["examples"], params.training.local_steps * params.training.batch
        if told > asked:
            raise ReplyError(f"examples is {told}, but {asked} were asked for: local_steps times batch")
        weight = 1.0 if params.federation.weighting == "equal" else float(told)
        return wire.unpack(self.content, protocol.DELTA, params.federation.uplink), weight

    def record(self, privacy: PrivacyParams) -> dict[str, float]:
        """What stands of it in a round's row; its losses are within what an honest site can tell."""
        record: dict[str, float] = {name: self.values[name] for name in _RECORDED if name in self.values}
        for name in ("train_loss", "held_out_loss"):
            if name in record:
                record[name] = sound_loss(record[name], privacy)
        return record | {"bytes_down": self.bytes_down}


def sound_loss(loss: float, privacy: PrivacyParams) -> float:
    """A loss within what an honest site can tell: no mean of squares is below 0, but a noised one may be."""
    least, most = 0.0, _MOST_LOSS
    if privacy.mode == "site":
        noise = _NOISES * privacy.report_noise_multiplier * privacy.loss_bound / 2
        least, most = -noise, privacy.loss_bound + noise
    return min(max(loss, least), most)


class Answer(BaseModel):
    """What a reply tells besides tensors; what is not asked for is not kept."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="ignore")


class SummaryAnswer(Answer):
    """To :data:`protocol.SUMMARY`: a manifest without its episodes' digests, parsed by :func:`manifest_in`."""

    manifest: dict[str, Any] = Field(max_length=100)


class StatisticsAnswer(Answer):
    """To :data:`protocol.STATISTICS`: tensors alone."""


class LacksAnswer(Answer):
    """To a message that names a model which the site does not hold."""

    lacks: str = Field(max_length=100, description="the model's digest")


class TrainAnswer(Answer):
    """To :data:`protocol.TRAIN`, with an update."""

    epsilon: Epsilon = None  # first: a loss is judged by it
    examples: Count = Field(description="samples trained on, steps times batch")
    train_loss: Loss
    train_s: Seconds = Field(description="seconds of training")
    learning_rate: Share = Field(description="of the last step")


class EvaluateAnswer(Answer):
    """To :data:`protocol.EVALUATE`."""

    epsilon: Epsilon = None  # first: a loss is judged by it
    frames: Count = Field(description="held-out frames judged")
    held_out_loss: Loss
    evaluate_s: Seconds = Field(description="seconds of judging")


_ANSWERS: dict[str, type[Answer]] = {
    protocol.SUMMARY: SummaryAnswer,
    protocol.STATISTICS: StatisticsAnswer,
    protocol.TRAIN: TrainAnswer,
    protocol.EVALUATE: EvaluateAnswer,
}


def wanted(kind: str, trainable: Mapping[str, torch.Tensor], uplink: Codec, joints: int) -> wire.Wanted:
    """The tensors that a reply must carry; see :func:`zk0.federation.wire.check`.

    Args:
        kind: Of the message.
        trainable: The global model's tensors.
        uplink: The codec agreed on for updates.
        joints: How many a site's arm has.
    """
    if kind == protocol.TRAIN:
        return {protocol.DELTA: codecs.forms_of(codecs.codec_named(uplink), trainable)}
    if kind == protocol.STATISTICS:
        shapes = {field.name: () if field.name == "count" else (joints,) for field in fields(Moments)}
        empty = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
        return {protocol.MOMENTS: codecs.forms_of(codecs.codec_named("fp32"), empty)}
    return {}


def payload_bytes(tensors: wire.Wanted) -> int:
    """How many bytes of tensors a reply carries."""
    return sum(form.payload_bytes for record in tensors.values() for form in record.values())


def parse(message: Message, kind: str, expected: protocol.Header, site: str, tensors: wire.Wanted) -> dict[str, Any]:
    """What a reply tells, in plain values within their bounds; its tensors are as wanted, but not decoded yet.

    Args:
        message: The reply.
        kind: Of the message that it answers.
        expected: The header that it must have.
        site: Who was asked.
        tensors: What it must carry; a site that lacks the model carries none.

    Raises:
        ReplyError: Anything is wrong with it, or the site tells that it failed.
    """
    if message.has_error():
        raise ReplyError(f"the site failed: {protocol.failure(message, site)}")
    try:
        told = protocol.plain(message.content)
        values = told.pop("values")
        protocol.check_reply(protocol.Header.model_validate(told, strict=True), expected)
        lacks = kind in (protocol.TRAIN, protocol.EVALUATE) and protocol.LACKS in values
        model = LacksAnswer if lacks else _ANSWERS[kind]
        answer = model.model_validate(values)
        wire.check(message.content, {} if lacks else tensors)
    except ValidationError as error:
        raise ReplyError(f"the reply's {fault(error)}") from error
    except protocol.WireError as error:
        raise ReplyError(str(error)) from error
    return dict(_shown(answer.model_dump(mode="json", exclude_none=True)))


def manifest_in(values: dict[str, Any], **known: Any) -> Manifest:
    """The manifest that a summary tells; of its episodes no digest.

    Args:
        values: From :func:`parse`.
        known: Fields that are known better than by the site's word.

    Raises:
        ReplyError: It is no manifest.
    """
    told = {**values["manifest"], **known, "role": "site", "episode_digests": {}}
    try:
        return Manifest.model_validate(told)
    except ValidationError as error:
        raise ReplyError(f"its manifest's {fault(error)}") from error


def _shown(value: Any) -> Any:
    """The same value with every word in it, keys too, fit to be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list) else value
