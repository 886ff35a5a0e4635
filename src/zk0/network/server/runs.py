"""A run of the federation is handed to the SuperLink."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from zk0.errors import StageError
from zk0.network.server.bundle import CLIENT_APP, NAME, SERVER_APP, write_bundle
from zk0.network.server.services import FederationServer, runs_of
from zk0.network.server.wanted import Wanted


def submit(
    server: FederationServer,
    client_app: str = CLIENT_APP,
    server_app: str = SERVER_APP,
    name: str = NAME,
    **settings: str | float | int,
) -> int:
    """Hand a run over to the SuperLink.

    Args:
        server: Which runs, with the sites that are to take part.
        client_app: As sites have it installed.
        server_app: As the server has.
        name: The app's, by which runs are told apart.
        settings: For the ServerApp, by the names of the bundle with ``_`` for ``-``.

    Returns:
        The run's number.

    Raises:
        StageError: One is in progress already, or the SuperLink does not take it.
    """
    if busy := [run for run in runs_of(server) if not run.finished]:
        raise StageError(
            f"run {busy[0].number} is in progress; `zk0 server watch` follows it, `zk0 server halt` stops it"
        )
    with tempfile.TemporaryDirectory() as folder:
        app = build_fab_from_disk(write_bundle(Path(folder) / "app", client_app, server_app, name))
    config: Any = {key.replace("_", "-"): value for key, value in settings.items()}
    request = StartRunRequest(
        fab=fab_to_proto(Fab(hashlib.sha256(app).hexdigest(), app, {})), override_config=user_config_to_proto(config)
    )
    with server.control() as client:
        answer = client.StartRun(request)
    if not answer.HasField("run_id"):
        raise StageError(f"the SuperLink did not take the run; its log is {server.services.log('superlink')}")
    if name == NAME:
        Wanted(int(answer.run_id), (client_app, server_app), settings).write(server.root)
    return int(answer.run_id)
