"""A ClientApp whose sites tell which tensors they were sent, in a module that workers can import."""

from __future__ import annotations

import os

from federated_sites import app_of
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

SENT, TOLD = "sent", "told"


def telling() -> ClientApp:
    """A site answers with its process, the record that it got, as that process knows it, and what is in it."""
    seen = []  # so that no other record takes the place of one that is gone

    def answer(message: Message, context: Context) -> Message:
        record = message.content.array_records[SENT]
        seen.append(record)
        (array,) = record.to_numpy_ndarrays()
        told = {"process": os.getpid(), "record": id(record), "values": [float(array.min()), float(array.max())]}
        return Message(RecordDict({TOLD: ConfigRecord(told)}), reply_to=message)

    return app_of(answer)
