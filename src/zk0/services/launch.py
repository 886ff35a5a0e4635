"""``python -m zk0.services.launch NAME``: becomes a service, as supervisord's child.

supervisord's own config file would be another place in which command and environment had to be quoted, and a child of
its own gets its environment on top. Here a service gets exactly what was written down for it, in the order in which
services need each other: one that is restarted alone, or with all others, waits for the ports of those before it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import psutil

from zk0.files import read_json
from zk0.services.identity import end, end_remnants, recorded, write_record

PROGRAMS = Path("programs")
_PORT_WAIT_S = 120.0
_END_S = 10.0


def main(name: str) -> None:
    """Write down who this is, and become the service. Runs in supervisord's folder."""
    record = Path("..", f"{name}.json")
    wanted = read_json(PROGRAMS / f"{name}.json")
    if record.exists():  # it has died
        if not wanted["outlived"]:
            end_remnants(record)
        _end_first(wanted["renews"])
    write_record(record, os.getpid(), command=wanted["command"])
    for port in wanted["after"]:
        _await_port(port)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.chdir(wanted["cwd"])
        os.execvpe(wanted["command"][0], wanted["command"], wanted["env"])
    except OSError as error:
        sys.exit(f"error: {name} cannot be started: {error}")


def _end_first(names: list[str]) -> None:
    for name in names:
        if (process := recorded(Path("..", f"{name}.json"))) is not None:
            end([process], psutil.Process.terminate, _END_S)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + _PORT_WAIT_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return
        except OSError:
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
