"""Events of a site, for who watches a run on the site's own machine: it trained, and its update was taken out."""

from __future__ import annotations

import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from zk0.federation import protocol, wire
from zk0.federation.site import site_at
from zk0.records.journal import Journal


def noted(app: ClientApp, journal: Journal) -> ClientApp:
    """The same ClientApp, which says in a journal when a site has trained and when its update is ready to be sent.

    It tells times and sizes only: what a site learned is the server's to tell, with the privacy that the run has.
    """

    def train(message: Message, context: Context) -> Message:
        began = time.perf_counter()
        reply = app(message, context)
        if reply.has_error() or protocol.DELTA not in reply.content:  # it asks for the model first
            return reply
        header, values = protocol.read(reply.content)
        site, trained = site_at(context.node_config).manifest.site, float(values["train_s"])
        journal.say("local-training", f"{site} has trained", round=header.round, site=site, seconds=trained)
        update = reply.content[protocol.DELTA]
        journal.say(
            "extract",
            f"{site}'s update is ready",
            round=header.round,
            site=site,
            seconds=time.perf_counter() - began - trained,
            tensors=len(update),
            bytes=wire.payload_bytes(reply.content),
        )
        return reply

    result = ClientApp()
    result.train()(train)
    for register in (result.query("summary"), result.query("statistics"), result.evaluate()):
        register(app)
    return result
