"""ClientApps whose worker ends in the middle of a round, in a module that workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from federated_sites import app_of
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from zk0.federation import protocol
from zk0.federation.client_app import app as honest


def dying(mark: Path, partition: int, times: int = 1, hangs: bool = False) -> ClientApp:
    """A site ends its process, or hangs, once it has trained in round 2 and kept what belongs to its update.

    Args:
        mark: A folder where it counts how often it did.
        partition: Which site.
        times: How often.
        hangs: Sleep instead.
    """

    def answer(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if message.metadata.message_type == protocol.TRAIN and context.node_config["partition-id"] == partition:
            header, _ = protocol.read(message.content, protocol.SiteTask)
            if header.round == 2 and len(list(mark.iterdir())) < times:
                (mark / str(os.getpid())).touch()
                if hangs:
                    time.sleep(600)
                os.kill(os.getpid(), signal.SIGKILL)
        return reply

    return app_of(answer)
