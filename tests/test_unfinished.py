"""What a killed process was writing is removed by the next who writes there; what a living one writes is not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from zk0.files import replaced_folder, write_text
from zk0.unfinished import NEW, OLD, new_folder, remove_leftovers

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
