"""Commands whose work a fork of a warm process does: to whoever ran them all is as if they had done it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from zk0.cli.warm import warm_process
from zk0.projects import layout

ZK0 = str(Path(sys.executable).parent / "zk0")


@pytest.fixture(scope="module")
def door() -> Iterator[dict[str, str]]:
    """Variables of commands whose work forks do."""
    with warm_process("cpu", os.environ) as variables:
        yield variables


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has been validated, so that `zk0 prepare` records, for minutes."""
    layout.lay_out(tmp_path / "project")
    params = tmp_path / "project" / "params.yaml"
    params.write_text(params.read_text().replace("episodes: 30 ", "episodes: 900 "))
    subprocess.run([ZK0, "validate"], cwd=params.parent, check=True, capture_output=True)
    return params.parent


def zk0(*words: str, cwd: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([ZK0, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [("profile", "list"), ("profile", "use", "nothing"), ("federate",), ("no-command",)])
def test_output_and_status_are_the_commands_own(door: dict[str, str], tmp_path: Path, words: tuple[str, ...]) -> None:
    layout.lay_out(tmp_path / "project")
    by_fork, alone = (zk0(*words, cwd=tmp_path / "project", variables=variables) for variables in (door, {}))

    assert (by_fork.returncode, by_fork.stdout, by_fork.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_a_fork_has_the_commands_variables(door: dict[str, str], tmp_path: Path) -> None:
    layout.lay_out(tmp_path / "project")
    done = zk0("validate", cwd=tmp_path / "project", variables={**door, "ZK0_BASE": "random:no-such"})

    assert (done.returncode, "no-such" in done.stderr) == (1, True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_a_command_ends_its_fork(door: dict[str, str], project: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [ZK0, "prepare"],
        cwd=project,
        env={**os.environ, **door},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as command:
        while not list(project.glob("data/**/.recordings*/**/*.mp4")) and not list(project.glob("data/**/*.mp4")):
            assert command.poll() is None
            time.sleep(0.1)
        at_work = [one for one in psutil.process_iter() if _works_in(one, project) and one.pid != command.pid]
        command.send_signal(how)
        try:
            status = command.wait(timeout=30)
        finally:
            command.kill()

    assert len(at_work) >= 3  # the fork, and what records for it
    _, alive = psutil.wait_procs(at_work, timeout=30)
    assert not alive
    assert status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with warm_process("cpu", os.environ) as variables:
        (door,) = variables.values()
        (process,) = [one for one in psutil.Process().children() if one.status() != "zombie" and door in one.cmdline()]

    assert not process.is_running()
    assert not Path(door).parent.exists()
    assert zk0("--version", cwd=tmp_path, variables=variables).returncode == 0  # it is done without


def test_it_is_for_the_cpu() -> None:
    with warm_process("cuda", os.environ) as variables:
        assert variables == {}
