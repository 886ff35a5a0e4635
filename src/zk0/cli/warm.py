"""Stages that begin at once: forks of a process that has imported what they import.

Importing PyTorch and LeRobot takes a stage longer than some stages work, and each has a process of its own, since DVC
runs it as a command. So `zk0 demo` starts one process that imports them while Prefect comes up, and a stage's command
has a fork of it do the work. DVC sees the command that it runs, with its output, its exit status and its end.

Only where a policy is on the CPU: what a driver has begun in the one that is forked would be of no use in the forks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from zk0 import runtime_env
from zk0.cli import WARM

_WAITING = 8  # commands that may wait until it has imported everything
_PROGRAM = "from zk0.cli import warm; warm.become_asked(); from zk0.cli.app import main; main()"
# Not MLflow, of which all of a run's memory would have a share: it is in `track` alone.
_MODULES = ("federate", "evaluate", "benchmark", "report", "validate", "prepare")


@contextmanager
def warm_process(device: str, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A process whose forks do the work of commands, within the block.

    Args:
        device: Where policies are; only on the CPU, and on Linux, is there one.
        environment: With which it is to import.

    Yields:
        Variables for the commands.
    """
    if device != "cpu" or sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="zk0-warm-") as folder:
        door = Path(folder) / "door"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(door)],
            stdin=subprocess.PIPE,  # it ends when nobody holds the other end
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the commands
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield {WARM: str(door)}
        finally:
            process.terminate()
            process.communicate()


def by_a_fork() -> int | None:
    """Have a fork of the warm process do what this process was asked to; None where there is none any more.

    A signal that reaches this process is passed on, and the fork ends with it.

    Returns:
        The fork's exit status.
    """
    about = {
        "arguments": sys.argv,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "interruptible": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,  # as of a shell's job in the background
    }
    asked = json.dumps(about).encode()
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(os.environ[WARM])
            socket.send_fds(line, [len(asked).to_bytes(4)], [0, 1, 2])
            line.sendall(asked)
            answers = line.makefile()
            process = int(answers.readline())
        except (OSError, ValueError):  # it could not import, or has ended
            return None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: _send(process, number))
        return int(answers.readline() or 1)


def _send(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def become_asked() -> None:
    """Import, and wait for commands; returns in a fork that is to be one of them, as if it were its process."""
    runtime_env.switch_off()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen(_WAITING)
        for module in _MODULES:
            importlib.import_module(f"zk0.pipeline.{module}")
        importlib.import_module("zk0.data.recordings")
        gc.freeze()  # or looking for circles would write to all that the forks share
        while True:
            if sys.stdin in select.select([door, sys.stdin], [], [])[0]:  # whoever started it has ended
                shutil.rmtree(Path(sys.argv[1]).parent, ignore_errors=True)
                os._exit(0)
            line = door.accept()[0]
            if not os.fork():
                break
            line.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    head, handed, _, _ = socket.recv_fds(line, 4, 3)
    asked = json.loads(line.recv(int.from_bytes(head), socket.MSG_WAITALL))
    if process := os.fork():
        _watch(line, process)
    line.close()
    for here, there in enumerate(handed):
        os.dup2(there, here)
        os.close(there)
    sys.argv = asked["arguments"]
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler if asked["interruptible"] else signal.SIG_IGN)


def _watch(line: socket.socket, process: int) -> NoReturn:
    """Beside a fork that works: tell its command how it ends, or end it where the command is gone."""

    def end_with_command() -> None:
        line.recv(1)
        _send(process, signal.SIGKILL)

    line.sendall(f"{process}\n".encode())
    threading.Thread(target=end_with_command, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(OSError):
        line.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
    os._exit(0)
