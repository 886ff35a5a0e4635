"""An app that does nothing on Flower's services: what every message costs there, whoever sends it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

SETTINGS, SECONDS = "empty-messages.json", "empty-seconds.json"

client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def _train(message: Message, _: Context) -> Message:
    """Reply with nothing, at once."""
    return Message(RecordDict(), reply_to=message)


@server_app.main()
def _main(grid: Grid, context: Context) -> None:
    """Send so many messages one after the other, by the Grid of our own runs, and note how long each took."""
    from flwr.superlink.grid import HttpGrid  # noqa: PLC0415 - each message's process loads this file

    from zk0.network.server.grid import NetworkGrid  # noqa: PLC0415 - likewise

    folder = Path(str(context.run_config["project"]))
    node, *_ = grid.get_node_ids()
    network = NetworkGrid(cast(HttpGrid, grid), [node], lambda _: True)
    seconds = []
    for _ in range(json.loads((folder / SETTINGS).read_text())):
        began = time.perf_counter()
        (reply,) = network.send_and_receive([Message(RecordDict(), node, "train")], timeout=120)
        if reply.has_error():
            raise RuntimeError(reply.error.reason)
        seconds.append(time.perf_counter() - began)
    (folder / SECONDS).write_text(json.dumps(seconds))
