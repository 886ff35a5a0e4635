"""The ClientApp of a site in a federation over a network: hands each message to the site's trainer, and its reply back.

Flower starts a process for every message. This one imports neither torch nor lerobot and keeps nothing: what a site
does with a message is :mod:`zk0.federation.client_app`, in the trainer, which has everything loaded.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from zk0.federation.protocol import error_reply
from zk0.network.client.channel import ChannelError, connected, receive, send, socket_path
from zk0.network.packing import is_packed, pack, unpack


class TrainerAway(ChannelError):
    """The site's trainer does not run, or ended while it had a message."""


class SiteApp(ClientApp):
    """A ClientApp that knows no message itself: whichever comes, the trainer is asked."""

    def __call__(self, message: Message, context: Context) -> Message:
        """The trainer's reply; where there is none, an error reply that says why."""
        try:
            return _asked(message, context)
        except (ChannelError, OSError, ValueError) as error:
            return error_reply(message, error)


def _asked(message: Message, context: Context) -> Message:
    project, partition = Path(str(context.node_config["project"])), int(context.node_config["partition-id"])
    packed = is_packed(message.content)
    message.content = unpack(message.content)
    reply = _replied(message, socket_path(project, partition), float(context.node_config.get("trainer-wait-s", 0)))
    if packed and reply.has_content():
        reply.content = pack(reply.content)
    return reply


def _replied(message: Message, path: Path, wait_s: float) -> Message:
    """The trainer's reply. One that died is started again, and gives the same: what a message does is its own to say.

    Args:
        message: For the trainer.
        path: Its socket's.
        wait_s: How long it may be away; 0 where nobody starts it again.
    """
    deadline = time.monotonic() + wait_s
    tries = _TRIES if wait_s else 1
    while True:
        try:
            with connected(path) as connection:
                tries -= 1
                return _exchanged(connection, message)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() > deadline:
                raise TrainerAway(f"the site's trainer does not run; {_MEND}") from error
        except TrainerAway:
            if not tries:
                raise
        time.sleep(_PAUSE_S)


def _exchanged(connection: socket.socket, message: Message) -> Message:
    try:
        send(connection, message)
        found = receive(connection)
    except (ChannelError, OSError) as error:
        raise TrainerAway(f"the site's trainer ended while it had the message ({error}); {_MEND}") from error
    if found is None:
        raise TrainerAway(f"the site's trainer ended while it had the message; {_MEND}")
    return found[0]


_PAUSE_S = 0.5
_TRIES = 3  # with one message: it may be what the trainer dies of
_MEND = "the site's owner starts it with `zk0 client start`, and its log says why it ended"

app = SiteApp()
