"""``python -m zk0.services.supervise``: supervisord for the services of one folder.

supervisord restarts what dies. Who restarts supervisord is its own first child, the keeper: this module with
``--keep``, which sleeps until the pipe from its parent closes. Then it ends what the dead one left behind, since
nothing can become its parent, and becomes supervisord itself, with the same services. Runs in supervisord's folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from zk0.services.identity import end, recorded, write_record
from zk0.services.launch import PROGRAMS

CONFIG, RECORD, SOCKET, LOCK = (
    Path("supervisord.conf"),
    Path("supervisord.json"),
    Path("control.sock"),
    Path("supervisord.lock"),
)
_OUTPUT = "supervisord.err"
_ORPHAN_WAIT_S = 10.0


def main() -> None:
    """Be supervisord until it is told to end; do nothing where another is, or nothing is to run."""
    keep = "--keep" in sys.argv[1:]
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
    end([process for path in records if (process := recorded(path))], psutil.Process.terminate, _ORPHAN_WAIT_S)
    for path in records:
        path.unlink(missing_ok=True)


def _redirect() -> None:
    """The pipes of a parent that is dead lead nowhere."""
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(_OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)


if __name__ == "__main__":
    main()
