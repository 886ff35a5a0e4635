"""Our ClientApp as Flower runs any: loaded in the process of each message, with policy, data and features."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from zk0.federation.client_app import app as site
from zk0.federation.start import locked_base
from zk0.network.packing import pack, unpack


class LoadingApp(ClientApp):
    """The same answers as the trainer's, without one."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Load policy and data, answer, and forget them."""
        project = Path(str(context.node_config["project"]))
        context.node_config |= {"decoded-limit-bytes": 2_000_000_000, "base": locked_base(project)[0]}
        message.content = unpack(message.content)
        reply = site(message, context)
        reply.content = pack(reply.content)
        return reply


app = LoadingApp()
