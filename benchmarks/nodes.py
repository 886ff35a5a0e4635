"""Many SuperNodes in one process, with stand-ins for sites: ``python -m benchmarks.nodes``.

What reaches the server is Flower's own: its SuperNode's connection (keys, signatures, heartbeats, polls every 3 s,
objects) over TLS, and packed messages. What is left out is what a site's machine does by itself: SuperNode's own store,
and the process that it starts for each message, which is a second's work of a core.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.supernode.fleet_http_connection import http_request_response

from benchmarks.standin import Standin
from zk0 import runtime_env
from zk0.federation.flower import inflatable_object, inflatable_utils
from zk0.network.packing import pack, unpack
from zk0.network.security.keys import NodeKey
from zk0.network.server.pulling import joined

_MOST = 1 << 30  # bytes of a message
_POLL_S = 3.0  # a SuperNode's own


def serve(server: str, authority: Path, key: NodeKey, standin: Standin) -> None:
    """Be a node, until the process ends."""
    private, known = key.private(), set[int]()
    keys = private, private.public_key()
    with http_request_response(server, False, str(authority), keys) as connection:
        _, receive, _, get_run, get_fab, *_ = connection
        while True:
            if (received := receive()) is None:
                time.sleep(_POLL_S)
                continue
            run = received[0].metadata.run_id
            if run not in known:
                get_fab(get_run(run).fab_hash, run)
                known.add(run)
            answer(connection, *received, standin)


def answer(connection: Any, asked: Message, tree: Any, standin: Standin) -> None:
    """Take a message's objects, and send the reply to it."""
    _, _, send, _, _, pull_object, push_object, confirm = connection
    run = asked.metadata.run_id
    numbers = [part.object_id for part in inflatable_object.iterate_object_tree(tree)]
    parts = inflatable_utils.pull_objects(list(dict.fromkeys(numbers)), partial(pull_object, run))
    confirm(run, tree.object_id)
    asked.content = unpack(joined(tree.object_id, parts, _MOST).content)
    reply = standin.answer(asked)
    reply.content = pack(reply.content)
    with inflatable_object.no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        wanted, session = send(reply, inflatable_object.get_object_tree(reply), 0.001)
        objects = {number: one.deflate() for number, one in inflatable_object.get_all_nested_objects(reply).items()}
    sent = [(number, content) for number, content in objects.items() if number in wanted]
    inflatable_utils.push_object_contents_from_iterable(sent, partial(push_object, run, session))


def main() -> None:
    """One thread for each key: of SERVER, AUTHORITY, STANDIN and the KEYS' folders on the command line."""
    runtime_env.switch_off()
    server, authority, standin, *keys = sys.argv[1:]
    for folder in keys:
        site = Standin.read(Path(standin))
        arguments = (server, Path(authority), NodeKey.open(Path(folder)), site)
        threading.Thread(target=serve, args=arguments, name=folder, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
