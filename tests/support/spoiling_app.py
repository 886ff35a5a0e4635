"""A ClientApp that zk0's sites would never run: each of three sites lies in another way, in the first round only."""

from __future__ import annotations

import os
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message

from zk0.deployment.site_app import SiteApp
from zk0.federation import protocol

OVERSIZED_BYTES = 40 << 20


class SpoilingApp(SiteApp):
    """The site's own, whose first update is for another round, in another's name, or far too long."""

    def __call__(self, message: Message, context: Context) -> Message:
        reply = super().__call__(message, context)
        if message.metadata.message_type == protocol.TRAIN and reply.has_content():
            header, values = protocol.read(reply.content)
            if header.round == 1:
                _spoil(int(context.node_config["partition-id"]), reply, header, values)
        return reply


def _spoil(partition: int, reply: Message, header: Any, values: dict[str, Any]) -> None:
    if partition == 1:
        protocol.write(reply.content, header.model_copy(update={"round": 7}), **values)
    elif partition == 2:
        protocol.write(reply.content, header.model_copy(update={"partition": 0}), **values)
    elif partition == 3:
        more = Array("uint8", (OVERSIZED_BYTES,), "zk0", os.urandom(OVERSIZED_BYTES))
        reply.content["more"] = ArrayRecord({"more": more})


app = SpoilingApp()
