"""A site that does not train: it answers every message of the protocol as a site does, without PyTorch.

What it sends passes all of the server's checks, since it is well-formed, within bounds, and digested as a site digests
it. Updates are random numbers of the length that AdamW's steps have; losses fall with the rounds; the same partition
and round give the same bytes. It knows models by their digests alone, and asks for one that it was not sent.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from zk0.digests import digest_parts
from zk0.federation import protocol
from zk0.files import read_json, write_json
from zk0.so100 import JOINTS

FRAMES, HELD_OUT = 100, 20
_KEPT = 2
_GLOBAL = "global"


def manifest_of(partition: int, **changes: Any) -> dict[str, Any]:
    """What a site tells of its data: one episode to train on, one held out.

    Args:
        partition: Its number.
        changes: Fields that a policy wants otherwise, such as its cameras.
    """
    place = f"none-{partition}"
    return {
        "site": f"site-{partition:05d}",
        "partition": partition,
        "role": "site",
        "source": f"local:{place}",
        **dict.fromkeys(("revision", "repo_id", "root", "digest"), place),
        "robot_type": "so101",
        "fps": 10,
        "cameras": (),
        "camera_sources": {},
        "image_shapes": {},
        "joints": JOINTS,
        "tasks": (),
        "train_episodes": (0,),
        "held_out_episodes": (1,),
        "train_frames": FRAMES,
        "held_out_frames": HELD_OUT,
        **changes,
    }


class Standin:
    """Stands in for any number of sites; they know the same models, as sites of one process do.

    Args:
        shapes: Of the tensors that train, by name.
        start: Digest of the starting policy's.
        changes: See :func:`manifest_of`.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], start: str, **changes: Any) -> None:
        self._shapes, self._start, self._changes = shapes, start, changes
        self._models: deque[str] = deque(maxlen=_KEPT)

    def write(self, path: Path) -> None:
        """Note all of it for :meth:`read`, in another process."""
        write_json(path, {"shapes": self._shapes, "start": self._start, "changes": self._changes})

    @classmethod
    def read(cls, path: Path) -> Standin:
        """As it was written."""
        content = read_json(path)
        return cls(content["shapes"], content["start"], **content["changes"])

    def answer(self, message: Message, _: Context | None = None) -> Message:
        """A site's reply."""
        kind = message.metadata.message_type
        tasked = kind in (protocol.TRAIN, protocol.EVALUATE)
        task, told = protocol.read(message.content, protocol.SiteTask if tasked else protocol.Header)
        if tasked and not self._holds(message.content, told[protocol.MODEL]):
            return _reply(message, task, **{protocol.LACKS: told[protocol.MODEL]["digest"]})
        return {
            protocol.SUMMARY: self._summary,
            protocol.STATISTICS: self._statistics,
            protocol.TRAIN: self._train,
            protocol.EVALUATE: self._evaluate,
        }[kind](message, task)

    def _holds(self, content: RecordDict, told: Mapping[str, Any]) -> bool:
        """Whether the model is known, or was sent whole; it is known from then on."""
        digest, record = told["digest"], content.get(_GLOBAL)
        if digest in (self._start, *self._models):
            return True
        if not isinstance(record, ArrayRecord) or told["reference"] is not None:
            return False
        self._models.append(digest)
        return True

    def _summary(self, message: Message, header: protocol.Header) -> Message:
        return _reply(message, header, manifest=manifest_of(header.partition, **self._changes))

    @staticmethod
    def _statistics(message: Message, header: protocol.Header) -> Message:
        draw = np.random.default_rng(header.partition)
        size = len(JOINTS)
        spread, still = np.full(size, FRAMES * 100.0), np.full(size, 2.0)
        values = {"count": np.array(float(FRAMES))}
        for name in ("state", "action"):
            values |= {f"mean_{name}": draw.uniform(30, 40, size), f"m2_{name}": spread}
        values |= {"low": np.full(size, 10.0), "high": np.full(size, 60.0), "step": still, "change": still}
        record = ArrayRecord({n: Array("torch.float64", v.shape, "zk0", v.tobytes()) for n, v in values.items()})
        return _reply(message, header, (protocol.MOMENTS, record))

    def _train(self, message: Message, task: protocol.SiteTask) -> Message:
        if task.uplink != "fp32" or task.privacy.mode != "off":
            raise ValueError("the stand-in sends updates as fp32 and without noise; leave uplink and privacy alone")
        draw, steps = np.random.default_rng((task.partition, task.round)), task.training.local_steps
        values = draw.standard_normal(sum(map(math.prod, self._shapes.values())), np.float32)
        values *= task.training.learning_rate * steps
        view, record = memoryview(values).cast("B"), ArrayRecord()
        for name, shape in self._shapes.items():
            size = 4 * math.prod(shape)
            record[name] = Array("fp32", tuple(shape), "zk0", b"")
            record[name].data, view = view[:size], view[size:]  # type: ignore[assignment]  # as a codec's
        told = {"examples": steps * task.training.batch, "train_loss": _loss(task), "frames": FRAMES}
        rate = task.training.learning_rate
        return _reply(message, task, (protocol.DELTA, record), **told, train_s=0.001, learning_rate=rate)

    @staticmethod
    def _evaluate(message: Message, task: protocol.SiteTask) -> Message:
        return _reply(message, task, held_out_loss=_loss(task), frames=HELD_OUT, evaluate_s=0.001)


def app_of(path: Path) -> ClientApp:
    """The ClientApp of a stand-in that was written to a file."""
    result, answer = ClientApp(), _answering(path)
    for register in (result.query("summary"), result.query("statistics"), result.train(), result.evaluate()):
        register(answer)
    return result


@cache
def _answering(path: Path) -> Callable[[Message, Context], Message]:
    return Standin.read(path).answer


def _reply(
    message: Message, task: protocol.Header, sent: tuple[str, ArrayRecord] | None = None, **told: Any
) -> Message:
    content = RecordDict()
    header = protocol.Header(run=task.run, round=task.round, partition=task.partition)
    protocol.write(content, header, **told)
    if sent is not None:
        name, record = sent
        parts = {f"{key}\0{a.dtype}\0{tuple(a.shape)}": a.data for key, a in record.items()}
        content[name], content[f"{name}.digest"] = record, ConfigRecord({"digest": digest_parts(parts)})
    return Message(content, reply_to=message)


def _loss(task: protocol.SiteTask) -> float:
    """Falls with the rounds, and is a little another at each site."""
    return (1 + 0.1 * math.sin(task.partition)) / (1 + 0.02 * task.round)
