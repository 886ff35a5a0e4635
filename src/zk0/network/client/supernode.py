"""Flower's SuperNode, which a killed one does not keep from coming back.

``python -m zk0.network.client.supernode ...``.

All options are `flower-supernode`'s own, but for ``--node-number``, which it had when it ran last. The SuperLink takes
a killed node for alive for a minute, refuses it for so long, and then may never learn that what the node was asked is
lost. Started so, it says first that it is gone: the SuperLink answers for it at once, and lets it in again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from zk0 import runtime_env
from zk0.federation import flower


def main() -> None:
    """Tell the SuperLink that the node was gone, and become the SuperNode."""
    parser = argparse.ArgumentParser(prog="python -m zk0.network.client.supernode", add_help=False, allow_abbrev=False)
    parser.add_argument("--node-number", type=Path, required=True, help="log that holds it, if it ever ran")
    own, rest = parser.parse_known_args()
    runtime_env.switch_off()
    with contextlib.suppress(Exception):  # whatever is wrong with the server or the key, the SuperNode tells it better
        _say_goodbye(own.node_number, rest)
    command = Path(sys.executable).parent / "flower-supernode"
    os.execv(command, [str(command), *rest])


def _say_goodbye(log: Path, options: list[str]) -> None:
    from zk0.network.client.node import number_in  # noqa: PLC0415 - after the environment is set
    from zk0.network.security.keys import NodeKey  # noqa: PLC0415 - after the environment is set

    number = number_in(log)
    if number is None:
        return
    given = dict(pairwise(options))
    private = NodeKey.open(Path(given["--auth-supernode-private-key"]).parent).private()
    interceptors: list[Any] = [
        flower.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        flower.NodeAuthHttpInterceptor(private, private.public_key()),
    ]
    authority = Path(given["--root-certificates"]).read_bytes()
    with flower.FleetHttpClient.from_server_address(given["--superlink"], False, authority, interceptors) as client:
        client.DeactivateNode(flower.fleet_pb2.DeactivateNodeRequest(node_id=int(number)))


if __name__ == "__main__":
    main()
