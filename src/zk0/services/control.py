"""supervisord's settings and its control socket: a file that only its owner may open, and no port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from zk0.errors import StageError
from zk0.files import write_text
from zk0.services.supervise import CONFIG, RECORD, SOCKET, recorded

# Of a service's log, of which one older is kept.
LOG_BYTES = 20_000_000
# Which of ours is found where the interpreter does not find it by itself, and where programs are looked for.
_INHERITED = ("PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG", "LC_ALL")
_MODULE = '"%(ENV_ZK0_PYTHON)s" -m zk0.services.'
_ANSWER_S = 20.0
# A socket's address holds 107 bytes, and a project's path may be longer: a shorter name, where the system has one.
_LINUX = Path("/proc/self/fd").is_dir()

_SUPERVISORD = f"""\
[supervisord]
nodaemon = true
silent = true
nocleanup = true
logfile = supervisord.log
logfile_maxbytes = 1MB
logfile_backups = 1
pidfile = supervisord.pid

[unix_http_server]
file = {"/proc/self/cwd/" if _LINUX else ""}{SOCKET}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[program:keeper]
command = {_MODULE}supervise --keep
priority = 1
autorestart = true
startretries = 1000
stdout_logfile = NONE
stderr_logfile = NONE

[include]
files = programs/*.conf
"""

# A service that lives for less than startsecs has failed to start, and is tried again a second later, then two, and so
# on; after startretries it is given up. A large policy takes a minute to find out that it does not load.
_PROGRAM = """\
[program:{name}]
command = {module}supervise --launch {name}
autorestart = true
startsecs = {steady_s}
startretries = {retries}
stopwaitsecs = 60
killasgroup = true
redirect_stderr = true
stdout_logfile = ../{name}.log
stdout_logfile_maxbytes = {log_bytes}
stdout_logfile_backups = 1
"""
STEADY_S, RETRIES = 60, 10


def program(name: str) -> str:
    """supervisord's settings of one service; what it is, is written down beside them."""
    return _PROGRAM.format(name=name, module=_MODULE, steady_s=STEADY_S, retries=RETRIES, log_bytes=LOG_BYTES)


def start_supervisord(folder: Path) -> None:
    """Start supervisord in a session of its own, which outlives the terminal.

    Raises:
        StageError: It does not answer; says where its log is.
    """
    write_text(folder / CONFIG, _SUPERVISORD)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "zk0.services.supervise"],
        cwd=folder,
        env={**inherited, "ZK0_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + _ANSWER_S
    while recorded(folder / RECORD) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise StageError(f"supervisord does not start; its logs are {folder}/supervisord.*")
        time.sleep(0.02)


@contextmanager
def connected(folder: Path) -> Iterator[Any | None]:
    """supervisord's calls, as its documentation lists them; None where none runs.

    Raises:
        StageError: It runs and does not answer.
    """
    from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 - slow, and seldom needed

    if recorded(folder / RECORD) is None:
        yield None
        return
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    here = f"/proc/self/fd/{held}" if _LINUX else folder.resolve()
    transport = SupervisorTransport(serverurl=f"unix://{here}/{SOCKET}")
    try:
        server = ServerProxy("http://127.0.0.1", transport=transport)
        _await_answer(server, transport, folder)
        yield server.supervisor
    except (ConnectionError, HTTPException) as error:
        raise StageError(f"supervisord does not answer ({error}); its logs are {folder}/supervisord.*") from error
    finally:
        transport.close()
        os.close(held)


def _await_answer(server: ServerProxy, transport: Any, folder: Path) -> None:
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            server.supervisor.getState()
            return
        except OSError as error:
            transport.close()  # or its next request would follow the one that failed
            if recorded(folder / RECORD) is None or time.monotonic() > deadline:
                raise StageError(
                    f"supervisord does not answer ({error}); its logs are {folder}/supervisord.*"
                ) from error
            time.sleep(0.05)


def tried(call: Any, *arguments: Any) -> bool:
    """Whether a call did what it says; not where what it asks for is so already, or was undone by another command."""
    try:
        call(*arguments)
    except Fault:
        return False
    return True
