"""A service: a command in the background with a name, a log and a record of its process, all in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from zk0.errors import StageError
from zk0.files import read_json, write_json

LOG_BYTES = 20_000_000
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Services:
    """The services of one folder, by name: ``NAME.json`` records a process, ``NAME.log`` what it prints.

    Every call reads the records anew, so commands of different processes may start, look and stop.

    Example:
        >>> services = Services(Path(".run"))
        >>> services.launch("clock", ["sleep", "60"], dict(os.environ))
        >>> list(services.running())
        ['clock']
        >>> services.stop(["clock"])
        ['clock']
    """

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made when something is launched."""
        self.folder = folder

    def log(self, name: str) -> Path:
        """Where a service's output goes, that of earlier starts included."""
        return self.folder / f"{name}.log"

    def launch(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> int:
        """Start a service in a session of its own, which outlives the terminal.

        Returns:
            Its process id.

        Raises:
            StageError: It is running already.
        """
        if name in self.running():
            raise StageError(f"{name} is running already; its log is {self.log(name)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rotate_logs()
        # Appended to, so that what a service writes after a rotation is at the beginning of the emptied file.
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env=dict(env),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        # Unless somebody waits for it, a service that ends before this process stays a zombie, and its own children,
        # which watch whether their parent lives, with it.
        threading.Thread(target=process.wait, daemon=True).start()
        identity = {"pid": process.pid, "boot": _boot(), "uptime": _started(process.pid)}
        write_json(self._record(name), {**identity, "command": list(command)})
        return process.pid

    def running(self) -> dict[str, psutil.Process]:
        """The services that are alive, by name. A process id that was given to another is not ours."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = read_json(path)
            except FileNotFoundError:  # stopped by another since the folder was listed
                continue
            if record["boot"] != _boot():
                continue
            try:
                process = psutil.Process(record["pid"])
                ours = abs(_uptime_at_start(process) - record["uptime"]) < 1.0
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[path.stem] = process
            except psutil.NoSuchProcess:
                continue
        return found

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
        while time.monotonic() < deadline:
            try:
                if ready():
                    return
            except OSError:
                pass
            if name not in self.running():
                raise StageError(f"{name} ended when it was to start:\n{self.tail(name)}\nits log is {self.log(name)}")
            time.sleep(0.2)
        raise StageError(f"{name} does not answer after {wait_s:.0f} s; its log is {self.log(name)}")

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of a service's log."""
        path = self.log(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def stop(self, names: Iterable[str], wait_s: float = 20.0) -> list[str]:
        """Stop services one after the other, each with everything it started itself.

        Args:
            names: In this order; those that are not running are passed over.
            wait_s: For each, before it is killed.

        Returns:
            Names of those that were running.
        """
        stopped = []
        for name in names:
            process = self.running().get(name)
            if process is not None:
                _end(process, wait_s)
                stopped.append(name)
            self._record(name).unlink(missing_ok=True)
        return stopped

    def rotate_logs(self, most: int = LOG_BYTES) -> list[str]:
        """Empty logs that have grown too long, under services that go on writing; ``NAME.log.1`` keeps what was there.

        Args:
            most: Bytes that a log may have.

        Returns:
            Names of the services whose logs were.
        """
        long = [path for path in sorted(self.folder.glob("*.log")) if path.stat().st_size > most]
        for path in long:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
        return [path.stem for path in long]

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _end(process: psutil.Process, wait_s: float) -> None:
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return
    psutil.wait_procs([process], timeout=wait_s)
    # Not every parent tells its children: those that are left are asked, and then made, to end.
    _, left = psutil.wait_procs(family, timeout=0)
    _each(left, psutil.Process.kill if process in left else psutil.Process.terminate)
    _, left = psutil.wait_procs(left, timeout=wait_s)
    _each(left, psutil.Process.kill)
    psutil.wait_procs(left, timeout=wait_s)


def _each(processes: Iterable[psutil.Process], call: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            call(process)


def _started(pid: int) -> float:
    try:
        return _uptime_at_start(psutil.Process(pid))
    except psutil.NoSuchProcess:  # ended at once: no process will ever match
        return -10.0


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
