"""``python -m zk0.services.supervise``: supervisord for the services of one folder, and what it starts.

supervisord restarts what dies. Who restarts supervisord is its own first child, the keeper: this module with
``--keep``, which sleeps until the pipe from its parent closes. Then it ends what the dead one left behind, since
nothing can become its parent, and becomes supervisord itself, with the same services. Runs in supervisord's folder.

A service is this module with ``--launch NAME``, which becomes it. supervisord's own config file would be another place
in which command and environment had to be quoted, and a child of its own gets its environment on top. Here a service
gets exactly what was written down for it, in the order in which services need each other: one that is restarted alone,
or with all others, waits for the ports of those before it.

Which process is whose, a record tells that no other process can ever match. Little is imported, since every service
passes through here when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from zk0.files import BadFileError, read_json

CONFIG, RECORD, SOCKET, LOCK = (
    Path("supervisord.conf"),
    Path("supervisord.json"),
    Path("control.sock"),
    Path("supervisord.lock"),
)
PROGRAMS = Path("programs")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
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
    from filelock import FileLock  # noqa: PLC0415 - no service that passes through here needs it

    with FileLock(LOCK):
        if recorded(RECORD) is not None or (keep and not any(PROGRAMS.glob("*.conf"))):
            return
        end_orphans(Path())
        write_record(RECORD, os.getpid())
    from supervisor import supervisord  # noqa: PLC0415 - as filelock

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
    died = {"died": time.time()} if read_record(record) is not None else {}  # not where the machine was started anew
    if record.exists():  # it has died
        if not wanted["outlived"]:
            end_remnants(record)
        useless = [recorded(Path("..", f"{other}.json")) for other in wanted["renews"]]
        for process in filter(None, useless):
            end([process], psutil.Process.terminate, _END_S)
    write_record(record, os.getpid(), command=wanted["command"], **died)
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


def write_record(path: Path, pid: int, **more: Any) -> None:
    """Write down who a process is: its number, and when it began, in which run of the machine."""
    content = {"pid": pid, "boot": _boot(), "uptime": _uptime_at_start(psutil.Process(pid)), **more}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def read_record(path: Path) -> tuple[int, float] | None:
    """A process's number, and when it began; None where none of this run of the machine is noted, or not as it must."""
    try:
        found = read_json(path)
        return (found["pid"], found["uptime"]) if found["boot"] == _boot() else None
    except (FileNotFoundError, BadFileError, KeyError, TypeError):
        return None


def recorded(path: Path) -> psutil.Process | None:
    """The process of a record, if it is alive. A process id that was given to another is not it."""
    if (record := read_record(path)) is None:
        return None
    try:
        process = psutil.Process(record[0])
        ours = abs(_uptime_at_start(process) - record[1]) < 1.0
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end_remnants(path: Path) -> None:
    """Kill what a dead process of a record left behind of its group; it may hold a port."""
    record = read_record(path)
    if record is None or psutil.pid_exists(record[0]):
        return  # a group's number is given to no process while the group has members
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(record[0], 9)


def family_of(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Processes with everything that they started."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process, *process.children(recursive=True)]
    return found


def end(processes: Sequence[psutil.Process], ask: Callable[[psutil.Process], object], wait_s: float) -> None:
    """End processes with everything that they started.

    Args:
        processes: Which.
        ask: How each is asked to end.
        wait_s: Before it is killed.
    """
    family = family_of(processes)
    _each(processes, ask)
    psutil.wait_procs(processes, timeout=wait_s)
    # Not every parent tells its children: those that are left are asked, and then made, to end.
    _, left = psutil.wait_procs(family, timeout=0)
    for one in left:
        _each([one], psutil.Process.kill if one in processes else psutil.Process.terminate)
    _, left = psutil.wait_procs(left, timeout=wait_s)
    _each(left, psutil.Process.kill)
    psutil.wait_procs(left, timeout=wait_s)


def _each(processes: Iterable[psutil.Process], call: Callable[[psutil.Process], object]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            call(process)


def _boot() -> str:
    """Which start of the machine this is: after another, the same process id and uptime may be a stranger's."""
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _uptime_at_start(process: psutil.Process) -> float:
    """How many seconds after boot a process began.

    Its time of day would not do: that is told from the boot time, which moves whenever the clock is set, as it is
    minutes after boot on a board without a clock of its own. Every service would look as if it did not run.
    """
    while True:
        booted = psutil.boot_time()
        began = psutil.Process(process.pid).create_time()  # anew: an instance remembers its first answer
        if psutil.boot_time() == booted:  # the clock was not set in between
            return began - booted


if __name__ == "__main__":
    main(sys.argv[1:])
