"""A ClientApp that zk0's sites would never run: three sites lie, each in another way, in the first round only.

It starts once for every message, so it imports as little as the real one.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from zk0.deployment.site_app import SiteApp

OVERSIZED_BYTES = 40 << 20


class SpoilingApp(SiteApp):
    """The site's own, whose first update is for another round, in another's name, or far too long."""

    def __call__(self, message: Message, context: Context) -> Message:
        reply = super().__call__(message, context)
        if message.metadata.message_type == "train" and reply.has_content():
            header = json.loads(str(reply.content["header"]["json"]))
            if header["round"] == 1:
                _spoil(int(context.node_config["partition-id"]), reply, header)
        return reply


def _spoil(partition: int, reply: Message, header: dict[str, Any]) -> None:
    if partition == 1:
        header["round"] = 7
    elif partition == 2:
        header["partition"] = 0
    elif partition == 3:
        more = Array("uint8", (OVERSIZED_BYTES,), "zk0", os.urandom(OVERSIZED_BYTES))
        reply.content["more"] = ArrayRecord({"more": more})
    reply.content["header"] = ConfigRecord({"json": json.dumps(header)})


app = SpoilingApp()
