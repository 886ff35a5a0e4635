"""A service: a command in the background with a name and a log, which is started again when it dies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypedDict

import httpx
import psutil
from filelock import FileLock

from zk0.errors import StageError
from zk0.files import BadFileError, read_json, write_bytes, write_text
from zk0.private_files import private_folder
from zk0.services.control import connected, program, start_supervisord, tried
from zk0.services.supervise import PROGRAMS, RECORD, end, end_orphans, recorded
from zk0.words import nearest_hint

# States of supervisord in which a service does not run: it died, and is started again or was given up.
_AWAY = ("BACKOFF", "EXITED", "FATAL", "STOPPED", "UNKNOWN")
GIVEN_UP = "FATAL"
RUN = Path(".run")  # of a project: where its services are
_END_S = 10.0
_LOOK_S = 0.25  # how often a log is looked at that is followed


class Services:
    """The services of one folder, by name, under a supervisord of their own.

    ``NAME.json`` records a process, ``NAME.log`` what it prints; supervisord's own files are in ``supervisor``. Every
    call asks anew, so commands of different processes may start, look and stop.

    Example:
        >>> services = Services(Path(".run"))
        >>> pid = services.launch("clock", ["sleep", "60"], dict(os.environ))
        >>> list(services.running())
        ['clock']
        >>> services.stop(["clock"])
        ['clock']
    """

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made when something is launched."""
        self.folder = folder
        self._own = folder / "supervisor"

    def log(self, name: str) -> Path:
        """Where a service's output goes, that of earlier starts included."""
        return self.folder / f"{name}.log"

    def launch(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None = None,
        after: Sequence[int] = (),
        outlived: bool = False,
        renews: Sequence[str] = (),
    ) -> int:
        """Start a service, and have it started again whenever it ends, until it is stopped.

        Args:
            name: Its name.
            command: What it runs.
            env: All of its environment.
            cwd: Where it runs; here where None.
            after: Ports on loopback of services that it needs: it waits for them before each start.
            renews: Services that are of no use to it when it has died: they are started again with it.
            outlived: Whether what it started goes on when it dies; all of it is ended when it is stopped.

        Returns:
            Its process id.

        Raises:
            StageError: It is running already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            private_folder(self._own)
            programs = private_folder(self._own / PROGRAMS)
            if name in self.running():
                raise StageError(f"{name} is running already; its log is {self.log(name)}")
            if recorded(self._own / RECORD) is None:
                self._begin_anew()
            wanted: dict[str, object] = {"command": list(command), "env": dict(env), "cwd": str(cwd or Path.cwd())}
            wanted |= {"after": list(after), "outlived": outlived, "renews": list(renews)}
            with connected(self._own) as supervisord:
                if supervisord is None:
                    raise StageError(f"supervisord was killed just now; start {name} again")
                _forget(supervisord, name)  # of one that was given up
                write_bytes(programs / f"{name}.json", json.dumps(wanted).encode(), mode=0o600)
                write_text(programs / f"{name}.conf", program(name))
                supervisord.reloadConfig()
                supervisord.addProcessGroup(name)
                tried(supervisord.startProcess, name, False)
                pid = int(supervisord.getProcessInfo(name)["pid"])
                while pid and recorded(self._record(name)) is None and _state(supervisord, name).get("pid") == pid:
                    time.sleep(0.02)
        return pid

    def running(self) -> dict[str, psutil.Process]:
        """The services that are alive, by name. What a killed supervisord left behind is none of them."""
        if recorded(self._own / RECORD) is None:
            return {}
        names = {path: recorded(path) for path in sorted(self.folder.glob("*.json"))}
        return {path.stem: process for path, process in names.items() if process is not None}

    def last_death(self, name: str) -> float | None:
        """When a service that runs was last started because it had died, in seconds since 1970; None where never."""
        try:
            died = read_json(self._record(name)).get("died")
        except (FileNotFoundError, BadFileError, AttributeError):
            return None
        return died if isinstance(died, float) else None

    def known(self) -> list[str]:
        """Those that were launched and not stopped, whether they run at this moment or not."""
        wanted = {path.stem for path in (self._own / PROGRAMS).glob("*.conf")}
        left = {path.stem for path in self.folder.glob("*.json") if recorded(path) is not None}
        return sorted(wanted | left)

    def given_up(self) -> list[str]:
        """Those that died too often in too short a time, and are not started again."""
        with connected(self._own) as supervisord:
            found = [] if supervisord is None else supervisord.getAllProcessInfo()
        return [one["name"] for one in found if one["statename"] == GIVEN_UP]

    def await_ready(self, name: str, ready: Callable[[], bool], wait_s: float) -> None:
        """Wait until a service answers.

        Args:
            name: Its name.
            ready: Whether it does; an OSError counts as no.
            wait_s: For how long.

        Raises:
            StageError: It ended, or does not answer in time; tells the end of its log.
        """
        deadline = time.monotonic() + wait_s
        first = self.running().get(name)
        with connected(self._own) as supervisord:
            while time.monotonic() < deadline:
                try:
                    if ready():
                        return
                except OSError:
                    pass
                present = {} if supervisord is None else _state(supervisord, name)
                if not present or present["statename"] in _AWAY or (first and present["pid"] != first.pid):
                    raise StageError(
                        f"{name} ended when it was to start:\n{self.tail(name)}\nits log is {self.log(name)}"
                    )
                time.sleep(0.2)
        raise StageError(f"{name} does not answer after {wait_s:.0f} s; its log is {self.log(name)}")

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of a service's log."""
        path = self.log(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def stop(self, names: Iterable[str], wait_s: float = 20.0) -> list[str]:
        """Stop services one after the other, each with everything it started itself.

        Args:
            names: In this order; those that were not launched are passed over.
            wait_s: For each, before it is killed.

        Returns:
            Names of those that ran, or were to be started again.
        """
        stopped = []
        for name in names:
            if name in self.known():
                self._stop(name, wait_s)
                stopped.append(name)
            self._record(name).unlink(missing_ok=True)
        if self._own.is_dir():
            with self._alone():
                if not list((self._own / PROGRAMS).glob("*.conf")):
                    self._end_supervisord()
        return stopped

    def _stop(self, name: str, wait_s: float) -> None:
        process = recorded(self._record(name))
        with self._alone():
            for path in (self._own / PROGRAMS).glob(f"{name}.*"):
                path.unlink()
        with connected(self._own) as supervisord:
            if supervisord is None:
                end([process] if process else [], psutil.Process.terminate, wait_s)
                return
            if process is not None:  # supervisord lets it have its time, unless it is up earlier
                end([process], lambda _: tried(supervisord.stopProcess, name, False), wait_s)
            _forget(supervisord, name)

    def _begin_anew(self) -> None:
        """Without supervisord, whatever was there before was not brought back, as after a reboot of the machine."""
        end_orphans(self._own)
        for path in (self._own / PROGRAMS).glob("[!.]*"):
            path.unlink()
        start_supervisord(self._own)

    def _end_supervisord(self) -> None:
        process = recorded(self._own / RECORD)
        with connected(self._own) as supervisord:
            if process is not None and supervisord is not None:
                end([process], lambda _: tried(supervisord.shutdown), _END_S)
        (self._own / RECORD).unlink(missing_ok=True)

    def _alone(self) -> FileLock:
        """One command at a time changes what is to run."""
        return FileLock(self.folder / "services.lock")

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"


class _State(TypedDict, total=False):
    """Of what supervisord tells of a service, what is used here."""

    statename: str
    pid: int


def _state(supervisord: Any, name: str) -> _State:
    """What supervisord knows of a service; nothing where it was stopped by another command."""
    found: dict[str, _State] = {one["name"]: one for one in supervisord.getAllProcessInfo()}
    return found.get(name, _State())


def _forget(supervisord: Any, name: str) -> None:
    """Take a service from supervisord, and wait until it is gone."""
    while present := _state(supervisord, name):
        if present["statename"] not in ("STOPPED", "EXITED", "FATAL"):
            tried(supervisord.stopProcess, name, True)
        if not tried(supervisord.removeProcessGroup, name):
            time.sleep(0.02)


def own_environment(**more: str) -> dict[str, str]:
    """This process's environment with the present interpreter's folder first, so that `zk0` and `flwr` are found."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, **more}


def answers(url: str) -> bool:
    """Whether an address can be had, of a service in plain text on this machine."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def read_log(root: Path, name: str, lines: int, follow: bool = False) -> Iterator[str]:
    """Lines of a service's log, oldest first.

    Args:
        root: Project folder.
        name: The service.
        lines: How many of those that are there.
        follow: Go on with what is added, for as long as somebody asks.

    Raises:
        StageError: There is no such log; names the nearest.
    """
    services = Services(root / RUN)
    path = services.log(name)
    if not path.is_file():
        known = sorted(log.stem for log in services.folder.glob("*.log"))
        hint = nearest_hint(name, known) if known else ": nothing has been started here"
        raise StageError(f"there is no log of a service '{name}'{hint}")
    stream = path.open(errors="replace")
    try:
        yield from stream.read().splitlines()[-lines:]
        while follow:
            if line := stream.readline():
                yield line.rstrip(os.linesep)
            elif _rotated(path, stream):
                stream.close()
                stream = path.open(errors="replace")
            else:
                time.sleep(_LOOK_S)
    finally:
        stream.close()


def _rotated(path: Path, stream: IO[str]) -> bool:
    """Whether the log begins anew in another file."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:  # at this very moment
        return False
