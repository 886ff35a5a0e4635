"""What carries a run's messages, and whether it died while they were on their way: Flower sends none of them twice.

A node asks for a message, and the SuperLink counts it as delivered with its answer, wherever that ends. So what was
under way when a gateway or a SuperLink died may be lost, and what a node had when it died is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zk0.errors import StageError
from zk0.network.security.files import SUPERLINK
from zk0.network.server.services import FederationServer
from zk0.network.server.status import present_nodes
from zk0.network.server.wanted import INTERRUPTED

_EVERY_S = 3.0
_OF_SERVER = (SUPERLINK, "gateway")


class Carriers:
    """The server's SuperLink and gateway, and the sites' nodes.

    Args:
        server: Whose.
    """

    def __init__(self, server: FederationServer) -> None:
        self._server = server

    def watched(self) -> Callable[[int], bool]:
        """Watch them from now on.

        Returns:
            Whether a node began anew since then. Raises a StageError where SuperLink or gateway did: the run is taken
            up again from its last complete round.
        """
        carriers, nodes = self._processes(), self._activations({})
        asked, found = time.monotonic(), dict(nodes)

        def lost(node: int) -> bool:
            nonlocal asked, found
            if time.monotonic() - asked > _EVERY_S:
                asked = time.monotonic()
                for name, pid in self._processes().items():
                    if carriers.setdefault(name, pid) != pid:
                        raise StageError(f"{INTERRUPTED}the {name} was started anew while messages were on their way")
                found = self._activations(found)
            return node in nodes and node in found and nodes[node] != found[node]

        return lost

    def _processes(self) -> dict[str, int]:
        running = self._server.services.running()
        return {name: running[name].pid for name in _OF_SERVER if name in running}

    def _activations(self, last: dict[int, str]) -> dict[int, str]:
        """When each node was let in; as it was known last where the SuperLink is away."""
        try:
            return present_nodes(self._server)
        except StageError:
            return last
