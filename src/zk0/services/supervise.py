"""``python -m zk0.services.supervise``: supervisord for the services of one folder, and what it starts.

supervisord restarts what dies. Who restarts supervisord is its own first child, the keeper: this module with
``--keep``, which sleeps until the pipe from its parent closes. Then it ends what the dead one left behind, since
nothing can become its parent, and becomes supervisord itself, with the same services. Runs in supervisord's folder.

A service is this module with ``--launch NAME``, which becomes it. supervisord's own config file would be another place
in which command and environment had to be quoted, and a child of its own gets its environment on top. Here a service
gets exactly what was written down for it, in the order in which services need each other: one that is restarted alone,
or with all others, waits for the ports of those before it.
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

CONFIG, RECORD, SOCKET, LOCK = (
    Path("supervisord.conf"),
    Path("supervisord.json"),
    Path("control.sock"),
    Path("supervisord.lock"),
)
PROGRAMS = Path("programs")
_OUTPUT = "supervisord.err"
_PORT_WAIT_S = 120.0
_END_S = 10.0


def main(arguments: list[str]) -> None:
    """Be supervisord until it is told to end; do nothing where another is, or nothing is to run."""
    if arguments[:1] == ["--launch"]:
        launch(arguments[1])
    keep = arguments == ["--keep"]
    if keep:
        sys.stdin.buffer.read()
    _redirect()
    from filelock import FileLock

    with FileLock(LOCK):
        if recorded(RECORD) is not None or (keep and not any(PROGRAMS.glob("*.conf"))):
            return
        end_orphans(Path())
        write_record(RECORD, os.getpid())
    from supervisor import supervisord

    supervisord.main(["-c", str(CONFIG)])


def end_orphans(folder: Path) -> None:
    """End the services of a supervisord that was killed; its folder's parent has their records."""
    records = sorted(folder.resolve().parent.glob("*.json"))
    end([process for path in records if (process := recorded(path))], psutil.Process.terminate, _END_S)
    for path in records:
        path.unlink(missing_ok=True)


def launch(name: str) -> None:
    """Write down who this process is, and become the service."""
    record = Path("..", f"{name}.json")
    wanted = read_json(PROGRAMS / f"{name}.json")
    if record.exists():  # it has died
        if not wanted["outlived"]:
            end_remnants(record)
        useless = [recorded(Path("..", f"{other}.json")) for other in wanted["renews"]]
        for process in filter(None, useless):
            end([process], psutil.Process.terminate, _END_S)
    write_record(record, os.getpid(), command=wanted["command"])
    for port in wanted["after"]:
        _await_port(port)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.chdir(wanted["cwd"])
        os.execvpe(wanted["command"][0], wanted["command"], wanted["env"])
    except OSError as error:
        sys.exit(f"error: {name} cannot be started: {error}")


def _await_port(port: int) -> None:
    deadline = time.monotonic() + _PORT_WAIT_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return
        except OSError:
            time.sleep(0.2)


def _redirect() -> None:
    """The pipes of a parent that is dead lead nowhere."""
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(_OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)


if __name__ == "__main__":
    main(sys.argv[1:])
