"""Files that others may have written: what is in them is told in one line, through every door by which they come in."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError
from tests_support import REPO

from zk0.errors import StageError, refused_by_disk
from zk0.files import BadFileError, read_json, read_records
from zk0.network.config import DeploymentConfig
from zk0.operations.backup import restore
from zk0.params import load_params
from zk0.records.files import read
from zk0.records.run import Run
from zk0.settings import read_settings
from zk0.sources import read_lock

LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
DEEP = 20_000

SETTINGS: list[tuple[bytes, str]] = [
    (b"seed: 1\nseed: 2\n", "line 2, column 1: the key 'seed' is there twice"),
    (LAUGHS.encode(), "line 2, column 8: '.a' refers to another place; write it out"),
    (("[" * DEEP + "]" * DEEP).encode(), "nested too deep"),
    (("a: {" * DEEP).encode(), "not valid YAML|nested too deep"),
    (b"- seed\n", "must be a mapping of sections, but holds list"),
    (b"seed: !!python/object/apply:os.system [touch here]\n", "could not determine a constructor"),
    (b"seed: 1\xff\n", "no text in UTF-8: byte 7 is 0xff"),
    (b"a: 1\n\tb: 2\n", "not valid YAML: line 2, column 1"),
    (b"x: " + b"y" * 300_000, "has 300003 bytes, and at most 262144 were expected"),
]

RECORDS: list[tuple[bytes, str]] = [
    (b"[" * DEEP + b"]" * DEEP, "nested more than 100 deep"),
    (b'{"run": 1, "run": 2}', "the key 'run' is there twice"),
    (b"{", "not valid JSON"),
    (b"\xff", "no text in UTF-8: byte 0 is 0xff"),
    (b"[1]", "must hold a mapping, but holds list"),
    (b"{}", "lacks 'run'"),
    (b'{"run": ' + b"9" * 5000 + b"}", "not valid JSON|lacks"),
]


@pytest.mark.parametrize(("content", "told"), SETTINGS, ids=[told for _, told in SETTINGS])
def test_settings(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=told) as by_params:
        load_params(path)
    with pytest.raises(BadFileError, match=told):
        read_settings(path)

    assert str(path) in str(by_params.value) and "\n" not in str(by_params.value)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(("content", "told"), RECORDS, ids=[told for _, told in RECORDS])
def test_records(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "results" / "federation" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(BadFileError, match=told) as error:
        read(tmp_path, Run)

    assert str(path) in str(error.value) and "\n" not in str(error.value)


LINES: list[tuple[bytes, str]] = [
    (b"[" * DEEP + b"]" * DEEP, "line 2 is nested more than 100 deep"),
    (b"[1]", "line 2 must hold a mapping, but holds list"),
    (b'{"rou', "line 2 is not valid JSON"),
]


@pytest.mark.parametrize(("line", "told"), LINES, ids=[told for _, told in LINES])
def test_lines(tmp_path: Path, line: bytes, told: str) -> None:
    """Where each line must be right, it is named; of what is appended to, a wrong one hides none of the others."""
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round": 0}\n' + line + b'\n{"round": 1}\n')

    with pytest.raises(BadFileError, match=told) as error:
        read_records(path, broken="none")

    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert read_records(path) == {1: {"round": 0}, 3: {"round": 1}}
    with pytest.raises(BadFileError, match=told):  # nobody was killed in the middle of a file
        read_records(path, broken="last")


@pytest.mark.parametrize("kind", ["a folder", "a pipe"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sources.lock.json"
    path.mkdir() if kind == "a folder" else os.mkfifo(path)

    with pytest.raises(BadFileError, match=f"is {kind}, and a file was expected; move it away"):
        read_lock(tmp_path)


def test_deployments_settings_come_in_by_the_same_door(tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text(LAUGHS)

    with pytest.raises(StageError, match="refers to another place; write it out"):
        DeploymentConfig.read(tmp_path / "deployment.yaml")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "holds no readable"),
        ("[" * DEEP + "]" * DEEP, "holds no readable"),
        ("[]", "holds no readable"),
        ('{"format": 2, "files": 3}', "'files' in its backup.json is no mapping"),
        ('{"format": [], "files": {}}', "is of backup format"),
        ('{"format": 1, "files": {"../x": "00"}}', "is damaged: ../x"),
    ],
)
def test_a_malformed_backup_is_refused_with_nothing_restored(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "backup.json").write_text(content)
    (tmp_path / "project").mkdir()
    with tarfile.open(tmp_path / "kept.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "backup.json", arcname="backup.json")

    with pytest.raises(StageError, match=told):
        restore(tmp_path / "kept.tar.gz", tmp_path / "project")
    assert not list((tmp_path / "project").iterdir())


def test_json_that_is_missing_is_just_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A project's folder that the system lets nobody write to."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(REPO / "params.yaml", project)
    try:
        for options in (["--bind", str(project)], ["-o", "remount,ro,bind"]):
            subprocess.run(["mount", *options, str(project)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"file systems may not be mounted here: {error}")
    try:
        yield project
    finally:
        subprocess.run(["umount", str(project)], check=True)


@pytest.mark.parametrize("command", ["validate", "prepare", "demo", "security init --host localhost"])
def test_a_read_only_project_is_told_of_in_a_line(read_only: Path, command: str) -> None:
    words = [str(Path(sys.executable).with_name("zk0")), *command.split()]

    done = subprocess.run(words, cwd=read_only, capture_output=True, text=True, check=False)

    (line,) = (done.stdout + done.stderr).replace("\n", " ").split("error: ")[1:]
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert line.startswith("Read-only file system: ") and "make it writable, or work in a copy" in line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/p/.run"), "Read-only file system: /p/.run; make it writable"),
        (SafetensorError('IoError(Os { code: 28, message: "No space left on device" })'), "No space left on device: "),
    ],
)
def test_what_a_disk_refuses_is_told_in_a_line(error: Exception, told: str) -> None:
    """Whoever wraps it."""
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = error

    assert (refused_by_disk(wrapped) or "").startswith(told)
    assert refused_by_disk(RuntimeError("another")) is None
