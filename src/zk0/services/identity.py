"""Which process is whose: a record of a process that no other process can ever match, and the end of one.

Imports little, since every service passes through here when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from zk0.files import BadFileError, read_json

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def write_record(path: Path, pid: int, **more: Any) -> None:
    """Write down who a process is: its number, and when it began, in which run of the machine."""
    content = {"pid": pid, "boot": _boot(), "uptime": _uptime_at_start(psutil.Process(pid)), **more}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def read_record(path: Path) -> dict[str, Any] | None:
    """What was written down; None where nothing was, another removed it just now, or it is no record."""
    try:
        found = read_json(path)
    except (FileNotFoundError, BadFileError):
        return None
    return found if isinstance(found, dict) and {"pid", "boot", "uptime"} <= found.keys() else None


def recorded(path: Path) -> psutil.Process | None:
    """The process of a record, if it is alive. A process id that was given to another is not it."""
    record = read_record(path)
    if record is None or record["boot"] != _boot():
        return None
    try:
        process = psutil.Process(record["pid"])
        ours = abs(_uptime_at_start(process) - record["uptime"]) < 1.0
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end_remnants(path: Path) -> None:
    """Kill what a dead process of a record left behind of its group; it may hold a port."""
    record = read_record(path)
    if record is None or record["boot"] != _boot() or psutil.pid_exists(record["pid"]):
        return  # a group's number is given to no process while the group has members
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(record["pid"], 9)


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
