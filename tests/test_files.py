"""Files are replaced as a whole or not at all; what a killed process was writing is removed by the next who writes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zk0.digests import digest_file, digest_folder, digest_parts
from zk0.files import (
    NEW,
    OLD,
    new_folder,
    read_json,
    remove_leftovers,
    replaced_folder,
    write_bytes,
    write_json,
    write_text,
)

WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
from zk0.files import replaced_folder
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    value = {"x": [1, 2.5, None], "ü": "ä"}

    write_json(path, value)

    assert read_json(path) == value
    assert path.read_text().endswith("}\n")
    assert names(path.parent) == ["b.json"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"loss": 1.0})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})

    assert read_json(path) == {"loss": 1.0}
    assert names(tmp_path) == ["x.json"]


def test_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(OSError):
        write_bytes(tmp_path / "taken", b"a file cannot replace a folder")

    assert names(tmp_path) == ["taken"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "hello")
    with replaced_folder(tmp_path / "folder"):
        pass

    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_text_ends_in_one_newline(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "a\nb\n\n")

    assert (tmp_path / "x").read_bytes() == b"a\nb\n"


def test_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")

    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "y.json")


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with replaced_folder(folder) as temporary:
        (temporary / "old").write_text("1")
    with replaced_folder(folder) as temporary:
        (temporary / "new").write_text("2")
        assert names(folder) == ["old"]

    assert names(folder) == ["new"]
    assert names(folder.parent) == ["folder"]


def test_folder_stays_when_the_block_fails(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with replaced_folder(folder) as temporary:
        (temporary / "old").write_text("1")

    with pytest.raises(RuntimeError, match="half way"), replaced_folder(folder) as temporary:
        (temporary / "new").write_text("2")
        raise RuntimeError("half way")

    assert names(folder) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_digest_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)  # more than is read at once
    (tmp_path / "x").write_bytes(content)

    assert digest_file(tmp_path / "x") == hashlib.blake2b(content, digest_size=32).hexdigest()


def test_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    def make(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return digest_folder(tmp_path / name)

    one = make("one", {"a": "1", "b/c": "2"})

    assert make("same", {"b/c": "2", "a": "1"}) == one
    assert make("renamed", {"a": "1", "b/d": "2"}) != one
    assert make("swapped", {"a": "2", "b/c": "1"}) != one
    assert make("more", {"a": "1", "b/c": "2", "e": ""}) != one


def test_digest_does_not_depend_on_time(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", json.loads("[1]"))
    before = digest_folder(tmp_path)
    os.utime(tmp_path / "x.json", (0, 0))

    assert digest_folder(tmp_path) == before


def test_digest_of_parts_is_by_label_and_content_only() -> None:
    small = {"a": b"one", "b": b"two"}
    large = {name: content * 400_000 for name, content in small.items()}

    for parts in (small, large):
        whole = digest_parts(parts)
        assert whole == digest_parts(dict(reversed(parts.items())))
        assert whole != digest_parts({"a": parts["b"], "b": parts["a"]})
        assert whole != digest_parts(parts | {"c": b""})
        assert whole == digest_parts({name: memoryview(content) for name, content in parts.items()})


def test_a_kill_during_export_leaves_nothing_for_ever(tmp_path: Path) -> None:
    write_text(tmp_path / "best" / "model.safetensors", "whole")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "best")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "there\n"

    remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 2  # it is alive

    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / "best" / "model.safetensors").read_text() == "whole\n"
    with replaced_folder(tmp_path / "best") as folder:
        (folder / "model.safetensors").write_text("new")
    assert names(tmp_path) == ["best"]
    assert (tmp_path / "best" / "model.safetensors").read_text() == "new"


def test_what_was_moved_aside_goes_too_and_strangers_files_stay(tmp_path: Path) -> None:
    (tmp_path / f".best.abc{OLD}").mkdir()
    (tmp_path / f".state.json.abc{NEW}").write_text("half")
    (tmp_path / "notes.tmp").write_text("mine")
    (tmp_path / f".link{NEW}").symlink_to(tmp_path / "notes.tmp")

    remove_leftovers(tmp_path)

    assert names(tmp_path) == [f".link{NEW}", "notes.tmp"]
    assert (tmp_path / "notes.tmp").read_text() == "mine"


def test_two_that_write_side_by_side_leave_each_other_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "best") as one, new_folder(tmp_path / "last") as other:
        assert one.is_dir() and other.is_dir()
    assert names(tmp_path) == []


def test_a_folder_that_is_a_link_goes_on_being_one(tmp_path: Path) -> None:
    write_text(tmp_path / "disk" / "best" / "a", "old")
    (tmp_path / "best").symlink_to(tmp_path / "disk" / "best")

    with replaced_folder(tmp_path / "best") as folder:
        (folder / "b").write_text("new")

    assert (tmp_path / "best").is_symlink() and names(tmp_path / "disk" / "best") == ["b"]
