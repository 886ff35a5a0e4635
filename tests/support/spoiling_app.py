"""A ClientApp that zk0's sites would never run: three of four sites lie, each class of lie once, over real services.

Lies of every field are tried in one process (``lies.py``); here are those that Flower's own messages carry, and one of
every other class. It starts once for every message, so it imports as little as the real one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.app.message.arraychunk import ArrayChunk

from zk0.network.client.app import SiteApp

OVERSIZED_BYTES = 40 << 20
SWOLLEN_BYTES = 3 << 29
_CHUNK_BYTES = 256 << 10
WORDS = "\x1b[2K\x1b[1A\nsteady is left out: it lies\r\n\u202e\x07" + "x" * (1 << 20)

Lie = Callable[[Message, Message], Message | None]  # of the reply, and of what was asked


def _fields(change: Callable[[dict[str, Any]], Any]) -> Lie:
    def lie(reply: Message, asked: Message) -> None:
        found = json.loads(str(reply.content["header"]["json"]))
        change(found)
        reply.content["header"] = ConfigRecord({"json": json.dumps(found)})

    return lie


def _values(**changes: Any) -> Lie:
    return _fields(lambda found: found["values"].update(changes))


def _json(text: str) -> Lie:
    def lie(reply: Message, asked: Message) -> None:
        reply.content["header"] = ConfigRecord({"json": text})

    return lie


def _too_long(reply: Message, asked: Message) -> None:
    more = Array("uint8", (OVERSIZED_BYTES,), "zk0", os.urandom(OVERSIZED_BYTES))
    reply.content["more"] = ArrayRecord({"more": more})


def _swollen(reply: Message, asked: Message) -> None:
    """A quarter of a megabyte that counts six thousand times: chunks that are alike travel once."""
    (array,) = reply.content["delta"].values()
    array.data = bytes(_CHUNK_BYTES)
    array.shape = (SWOLLEN_BYTES,)
    chunk = ArrayChunk(memoryview(array.data))
    vars(array)["_chunks"] = [(chunk.object_id, chunk)] * (SWOLLEN_BYTES // _CHUNK_BYTES)


def _index(change: Callable[[list[Any]], Any]) -> Lie:
    """Says something else of what is packed in the update."""

    def lie(reply: Message, asked: Message) -> None:
        parts = json.loads(str(reply.content["packed"]["delta"]))
        change(parts)
        text = json.dumps(parts).replace("Infinity", "1e999")
        reply.content["packed"] = ConfigRecord({**reply.content["packed"], "delta": text})

    return lie


def _many(parts: list[Any]) -> None:
    parts.extend([f"more{number}", "fp32", [0], "zk0", 0] for number in range(40_000))


def _error(code: int, text: str) -> Lie:
    return lambda reply, asked: Message(Error(code, text), reply_to=asked)


def _more(reply: Message, asked: Message) -> None:
    reply.content["more"] = ConfigRecord({"a": "b"})


# Kind of message, round, site's number: what it says in place of an honest reply, and a pattern of the reason for which
# it is left out. Site 0 never lies.
LIES: dict[tuple[str, int, int], tuple[Lie, str]] = {
    ("query.summary", 0, 1): (_fields(lambda found: found["values"]["manifest"].update(fps=10**400)), "fps"),
    ("query.statistics", 0, 3): (_json("[" * 100_000), "header"),
    ("evaluate", 0, 2): (_values(held_out_loss="\ud800"), "header is malformed"),
    ("train", 1, 1): (_fields(lambda found: found.update(round=7)), "round 7, expected 1"),
    ("train", 1, 2): (_fields(lambda found: found.update(partition=0)), "partition 0, expected 2"),
    ("train", 1, 3): (_too_long, "longer than"),
    ("evaluate", 1, 1): (_values(held_out_loss=1e308), "held_out_loss is 1e.308"),
    ("evaluate", 1, 2): (_values(frames=10**12), "frames is 1000000000000"),
    ("evaluate", 1, 3): (_fields(lambda found: found.update(values=[])), "values"),
    ("train", 2, 1): (_swollen, "would be [0-9]+ bytes of tensors"),
    ("train", 2, 2): (_index(lambda parts: parts[0].__setitem__(2, [float("inf")])), "packed in another way"),
    ("train", 2, 3): (_error(100, WORDS), "cut says: "),
    ("evaluate", 2, 1): (_error(101, "its node is away. steady is left out: it lies"), "hung says: "),
    ("evaluate", 2, 2): (_more, "'more'"),
    ("evaluate", 2, 3): (_values(held_out_loss=-1e12), "held_out_loss is -1"),
    ("train", 3, 1): (_index(lambda parts: parts[0].__setitem__(2, [0, 10**30])), "packed in another way"),
    ("train", 3, 2): (_index(_many), "was not asked for"),
    ("train", 3, 3): (_values(train_loss=10**400), "train_loss"),
}


class SpoilingApp(SiteApp):
    """The site's own, which says now and then something else; a lie at the roll call only once."""

    def __call__(self, message: Message, context: Context) -> Message:
        asked = json.loads(str(message.content["header"]["json"]))
        reply = super().__call__(message, context)
        kind, project = message.metadata.message_type, Path(str(context.node_config["project"]))
        found = LIES.get((kind, int(asked["round"]), int(context.node_config["partition-id"])))
        told = project / f"told-{kind}-{asked['round']}"
        if (
            found is None
            or not reply.has_content()
            or told.exists()
            or '"lacks"' in str(reply.content["header"]["json"])
        ):
            return reply
        told.touch()
        return found[0](reply, message) or reply


app = SpoilingApp()
