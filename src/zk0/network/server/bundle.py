"""The Flower app that a SuperLink hands to its nodes: names of what zk0 has installed on both ends, and no code.

Flower sends a run's app to every site, where it is code. Sites have zk0 installed, so the app only says which of
it to call, and what a site runs is what its owner installed.
"""

from __future__ import annotations

from pathlib import Path

from zk0 import __version__
from zk0.files import write_text

SERVER_APP = "zk0.network.server.server_app:app"
NAME = "zk0"
CLIENT_APP = "zk0.network.client.app:app"

_PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"
license = {{ file = "LICENSE" }}
dependencies = []

[tool.flwr.app]
publisher = "zk0"

[tool.flwr.app.components]
serverapp = "{server_app}"
clientapp = "{client_app}"

[tool.flwr.app.config]
# For the ServerApp alone. Folders are on the server's machine, from where its services were started.
project = "."
security = "security"
sites = ""
wait-s = 60.0
min-sites = 0
"""
_LICENSE = "zk0 is licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


def write_bundle(folder: Path, client_app: str = CLIENT_APP, server_app: str = SERVER_APP, name: str = NAME) -> Path:
    """Write the app of a federation over a network.

    Args:
        folder: Where to; made if need be.
        client_app: ``MODULE:ATTRIBUTE`` of the ClientApp, as sites have it installed.
        server_app: The same of the ServerApp.
        name: By which the SuperLink's list of runs tells apps apart.

    Returns:
        The folder, for ``flwr build`` and ``flwr run``.
    """
    content = _PYPROJECT.format(version=__version__, name=name, server_app=server_app, client_app=client_app)
    write_text(folder / "pyproject.toml", content)
    write_text(folder / "LICENSE", _LICENSE)
    return folder
