"""Services: real processes, started, found, waited for and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from zk0.deployment.logs import read_log
from zk0.deployment.services.process import Services
from zk0.errors import StageError


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path / ".run")
    yield found
    found.stop(list(found.running()), wait_s=1)


def python(services: Services, name: str, code: str) -> int:
    return services.launch(name, [sys.executable, "-c", code], os.environ)


def gone(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


def test_a_service_is_found_by_another_command_and_stopped_with_what_it_started(services: Services) -> None:
    code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    pid = python(services, "parent", code + "print(p.pid, flush=True); p.wait()")
    services.await_ready("parent", lambda: services.tail("parent").strip().isdigit(), 20)
    child = int(services.tail("parent"))
    there = Services(services.folder)

    assert {name: process.pid for name, process in there.running().items()} == {"parent": pid}
    assert there.stop(["other", "parent"]) == ["parent"]
    assert gone(pid) and gone(child) and there.running() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="psutil reads the boot time elsewhere")
def test_a_service_still_runs_after_the_clock_was_set(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = python(services, "clock", "import time; time.sleep(60)")
    before, booted = services.running()["clock"].create_time(), psutil.boot_time()

    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3600)

    assert services.running()["clock"].pid == pid
    assert services.running()["clock"].create_time() == before + 3600


def test_a_record_that_another_removes_after_listing_is_passed_over(services: Services) -> None:
    """As when two groups are stopped at once. A link to nothing is listed, and gone when it is read."""
    pid = python(services, "clock", "import time; time.sleep(60)")
    (services.folder / "gone.json").symlink_to(services.folder / "nowhere")

    assert {name: process.pid for name, process in services.running().items()} == {"clock": pid}


def test_one_that_runs_is_not_started_twice(services: Services) -> None:
    pid = python(services, "clock", "import time; time.sleep(60)")

    with pytest.raises(StageError, match="clock is running already"):
        python(services, "clock", "")
    assert services.running()["clock"].pid == pid


def test_one_that_ends_at_once_is_told_with_its_last_words(services: Services) -> None:
    python(services, "broken", "raise SystemExit('no such database')")

    with pytest.raises(StageError, match=r"broken ended(.|\n)*no such database(.|\n)*broken.log"):
        services.await_ready("broken", lambda: False, 20)


def test_one_that_does_not_answer_is_told(services: Services) -> None:
    python(services, "silent", "import time; time.sleep(60)")

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


def test_a_killed_one_leaves_no_zombie(services: Services) -> None:
    """Its starter lives on, as a test or a flow does."""
    pid = python(services, "killed", "import time; time.sleep(60)")

    os.kill(pid, signal.SIGKILL)

    assert gone(pid) and "killed" not in services.running()


def test_a_long_log_is_emptied_under_a_service_that_goes_on_writing(services: Services) -> None:
    code = "import time\nfor n in range(600): print(n, flush=True); time.sleep(0.05)"
    python(services, "clock", code)
    services.await_ready("clock", lambda: services.log("clock").stat().st_size > 20, 20)
    path, old = services.log("clock"), services.folder / "clock.log.1"
    following = read_log(services.folder.parent, "clock", 1, follow=True)
    last = int(next(following))

    assert services.rotate_logs(most=1_000_000) == [] and not old.exists()
    assert services.rotate_logs(most=10) == ["clock"]

    services.await_ready("clock", lambda: path.stat().st_size > 0, 20)
    kept, written = old.read_text().split(), path.read_text().split()
    assert kept[0] == "0" and int(written[0]) >= len(kept)
    assert int(next(following)) > last


def test_a_process_id_given_to_another_is_not_ours(services: Services) -> None:
    python(services, "ours", "import time; time.sleep(60)")
    record = services.folder / "ours.json"
    stranger = subprocess.Popen(["sleep", "60"])
    text = record.read_text().replace(str(services.running()["ours"].pid), str(stranger.pid), 1)
    services.stop(["ours"])
    record.write_text(text.replace('"uptime": ', '"uptime": 1'))

    assert services.running() == {} and services.stop(["ours"]) == []
    start = psutil.Process(stranger.pid).create_time() - psutil.boot_time()
    record.write_text(json.dumps(json.loads(text) | {"uptime": start, "boot": "of yesterday"}))
    assert services.running() == {} and services.stop(["ours"]) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
