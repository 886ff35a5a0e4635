"""Services: real processes under a real supervisord, started, found, waited for, brought back and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from zk0.errors import StageError
from zk0.services import control
from zk0.services.process import Services, read_log
from zk0.services.supervise import read_record

SLEEP = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One supervisord for all tests, whose path is longer than a socket's address, and is hard to quote."""
    found = Services(tmp_path_factory.mktemp("services") / ("a long # name; of 100% " * 6).strip() / ".run")
    python(found, "anchor", SLEEP)
    yield found
    assert "anchor" in found.stop(found.known(), wait_s=1)
    assert not list(found.folder.rglob("control.sock*")) and found.known() == []


@pytest.fixture
def services(supervised: Services) -> Iterator[Services]:
    yield supervised
    supervised.stop([name for name in supervised.known() if name != "anchor"], wait_s=1)


def python(services: Services, name: str, code: str, **env: str) -> int:
    return services.launch(name, [sys.executable, "-c", code], {**os.environ, **env})


def pids(services: Services) -> dict[str, int]:
    return {name: process.pid for name, process in services.running().items() if name != "anchor"}


def wait_for(true: Callable[[], Any], within_s: float = 20) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return found


def gone(pid: int) -> bool:
    return bool(wait_for(lambda: not psutil.pid_exists(pid), 10))


def test_a_service_is_found_by_another_command_and_stopped_with_what_it_started(services: Services) -> None:
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    pid = python(services, "parent", code + "print(p.pid, flush=True); p.wait()")
    services.await_ready("parent", lambda: services.tail("parent").strip().isdigit(), 20)
    child = int(services.tail("parent"))
    there = Services(services.folder)

    assert pids(there) == {"parent": pid}
    assert there.stop(["other", "parent"]) == ["parent"]
    assert gone(pid) and gone(child) and pids(there) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="psutil reads the boot time elsewhere")
def test_a_service_still_runs_after_the_clock_was_set(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = python(services, "clock", SLEEP)
    before, booted = services.running()["clock"].create_time(), psutil.boot_time()

    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3600)

    assert services.running()["clock"].pid == pid
    assert services.running()["clock"].create_time() == before + 3600


def test_a_record_that_another_removes_after_listing_is_passed_over(services: Services) -> None:
    """As when two groups are stopped at once. A link to nothing is listed, and gone when it is read."""
    pid = python(services, "clock", SLEEP)
    (services.folder / "gone.json").symlink_to(services.folder / "nowhere")

    assert pids(services) == {"clock": pid}
    (services.folder / "gone.json").unlink()


def test_the_first_may_be_started_side_by_side(tmp_path: Path) -> None:
    """As `zk0 deploy` does: one of them makes the folder and starts supervisord, and the others wait for it."""
    made = Services(tmp_path / ".run")
    names = [f"clock-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        started = dict(zip(names, pool.map(lambda name: python(made, name, SLEEP), names), strict=True))

    assert {name: process.pid for name, process in made.running().items()} == started
    assert made.stop(names, wait_s=1) == names and made.known() == []


def test_one_that_runs_is_not_started_twice(services: Services) -> None:
    pid = python(services, "clock", SLEEP)

    with pytest.raises(StageError, match="clock is running already"):
        python(services, "clock", "")
    assert services.running()["clock"].pid == pid


def test_one_that_ends_at_once_is_told_with_its_last_words(services: Services) -> None:
    python(services, "broken", "raise SystemExit('no such database')")

    with pytest.raises(StageError, match=r"broken ended(.|\n)*no such database(.|\n)*broken.log"):
        services.await_ready("broken", lambda: False, 20)


def test_one_that_does_not_answer_is_told(services: Services) -> None:
    python(services, "silent", SLEEP)

    def refused() -> bool:
        raise ConnectionRefusedError

    with pytest.raises(StageError, match=r"silent does not answer after 0 s.*silent.log"):
        services.await_ready("silent", refused, 0.3)


def test_one_that_does_not_listen_to_sigterm_is_killed(services: Services) -> None:
    pid = python(
        services,
        "deaf",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
    )
    services.await_ready("deaf", lambda: services.tail("deaf") == "up", 20)

    assert services.stop(["deaf"], wait_s=0.3) == ["deaf"]
    assert gone(pid)


def test_a_killed_one_comes_back_without_what_it_left_behind(services: Services) -> None:
    """A child of the dead one may still hold its port."""
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    pid = python(services, "killed", code + "print(p.pid, flush=True); p.wait()")
    child = int(wait_for(lambda: services.tail("killed").strip().isdigit() and services.tail("killed")))
    assert services.last_death("killed") is None
    killed = time.time()

    os.kill(pid, signal.SIGKILL)

    assert gone(pid) and gone(child)
    again = wait_for(lambda: pids(services).get("killed"))
    assert again != pid and services.given_up() == []
    assert killed < (services.last_death("killed") or 0) < time.time()


def test_one_that_dies_again_and_again_is_given_up_and_can_be_started_anew(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RETRIES", 1)
    python(services, "hopeless", "print('tried', flush=True); raise SystemExit(1)")

    wait_for(lambda: services.given_up() == ["hopeless"])
    assert services.tail("hopeless") == "tried\ntried" and "hopeless" in services.known()

    pid = python(services, "hopeless", SLEEP)
    assert pids(services) == {"hopeless": pid} and services.given_up() == []


def test_a_killed_supervisord_comes_back_and_nothing_runs_twice(services: Services) -> None:
    """Its children have no parent any more that could start them again: they are ended, and started by the new one."""
    before = {"clock": python(services, "clock", SLEEP), "anchor": services.running()["anchor"].pid}
    record = read_record(services.folder / "supervisor" / "supervisord.json")
    assert record is not None

    os.kill(record[0], signal.SIGKILL)

    assert all(gone(pid) for pid in before.values())
    wait_for(lambda: set(services.running()) == {"clock", "anchor"})
    after = pids(services)
    assert after["clock"] != before["clock"] and services.stop(["clock"]) == ["clock"]


def test_what_it_started_may_go_on_without_it_until_it_is_stopped(services: Services) -> None:
    """As a flow run does when its worker dies."""
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    command = [sys.executable, "-c", code + "print(p.pid, flush=True); p.wait()"]
    pid = services.launch("worker", command, dict(os.environ), outlived=True)
    child = int(wait_for(lambda: services.tail("worker").strip().isdigit() and services.tail("worker")))

    os.kill(pid, signal.SIGKILL)

    assert gone(pid) and wait_for(lambda: pids(services).get("worker")) != pid
    assert psutil.pid_exists(child)
    psutil.Process(child).kill()


def test_one_that_dies_takes_along_what_is_of_no_use_then(services: Services) -> None:
    base = python(services, "base", SLEEP)
    pid = services.launch("needy", [sys.executable, "-c", SLEEP], dict(os.environ), renews=["base"])
    assert pids(services) == {"base": base, "needy": pid}

    os.kill(pid, signal.SIGKILL)

    assert gone(pid) and gone(base)
    wait_for(lambda: set(pids(services)) == {"base", "needy"})


def test_a_service_waits_for_the_port_of_another(services: Services) -> None:
    """Also when both come back at once, and nobody is there to start them in order."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    services.launch("late", [sys.executable, "-c", "print('up', flush=True); " + SLEEP], dict(os.environ), after=[port])
    assert services.tail("late") in ("", "(no log)")

    with socket.create_server(("127.0.0.1", port)):
        wait_for(lambda: services.tail("late") == "up")


def test_only_its_owner_may_give_it_orders(services: Services) -> None:
    own = services.folder / "supervisor"
    python(services, "clock", SLEEP, SECRET="s3cret")

    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert stat.S_IMODE((own / "control.sock").stat().st_mode) == 0o600
    holding = [path for path in own.rglob("*") if path.is_file() and "s3cret" in path.read_text()]
    assert [path.name for path in holding] == ["clock.json"] and stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    listening = psutil.Process(read_record(own / "supervisord.json")[0]).net_connections("inet")  # type: ignore[index]
    assert listening == []


def test_it_gets_its_environment_and_its_folder_as_they_are(services: Services, tmp_path: Path) -> None:
    """Whatever is in them; and nothing of who started supervisord, or of supervisord itself."""
    odd = {
        "ODD": "100% of 'a' \"b\" \\ ; # ${PATH} %(here)s\nand a second line",
        "EMPTY": "",
        "PATH": os.environ["PATH"],
    }
    code = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.argv[1:]]), flush=True); "
    command = [sys.executable, "-c", code + SLEEP, "50% #;", "a 'b'"]
    services.launch("odd", command, odd, tmp_path)

    found, folder, words = json.loads(wait_for(lambda: services.tail("odd").endswith("]") and services.tail("odd")))
    found.pop("LC_CTYPE", None)  # Python's own
    assert found == odd and folder == str(tmp_path) and words == command[3:]


def test_a_long_log_is_begun_anew_and_followed(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOG_BYTES", 400)
    python(services, "clock", "import time\nfor n in range(3000): print(n, flush=True); time.sleep(0.01)")
    path, old = services.log("clock"), services.folder / "clock.log.1"
    wait_for(path.exists)
    following = read_log(services.folder.parent, "clock", 1, follow=True)
    last = -1

    while not old.exists() or last < int(path.read_text().split("\n")[0] or 10**9):
        number = int(next(following))
        assert number > last
        last = number

    assert old.stat().st_size >= 400 > path.stat().st_size
    assert len(list(services.folder.glob("clock.log*"))) == 2


def test_a_process_id_given_to_another_is_not_ours(services: Services) -> None:
    python(services, "ours", SLEEP)
    record = services.folder / "ours.json"
    stranger = subprocess.Popen(["sleep", "60"])
    text = record.read_text().replace(str(services.running()["ours"].pid), str(stranger.pid), 1)
    services.stop(["ours"])
    record.write_text(text.replace('"uptime": ', '"uptime": 1'))

    assert pids(services) == {} and services.stop(["ours"]) == []
    start = psutil.Process(stranger.pid).create_time() - psutil.boot_time()
    record.write_text(json.dumps(json.loads(text) | {"uptime": start, "boot": "of yesterday"}))
    assert pids(services) == {} and services.stop(["ours"]) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
