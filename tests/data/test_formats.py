"""What a dataset's metadata says of its format and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from so100_recordings import as_old_lerobot, motor_steps, write_v3, write_v21

from zk0.data.formats import missing_files, read_info, require_v3
from zk0.errors import DataError

TOP = "observation.images.top"
EPISODES = [as_old_lerobot(motor_steps(frames, frames)) for frames in (14, 11)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Two episodes in v2.1."""
    return write_v21(tmp_path / "cups", EPISODES)


def test_files_of_a_v3_dataset_are_known_by_its_metadata(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "cups", EPISODES)
    info = read_info(folder)
    assert missing_files(folder, info) == []

    video = next((folder / "videos" / TOP).rglob("*.mp4"))
    video.unlink()
    (folder / "meta" / "tasks.parquet").unlink()

    assert missing_files(folder, info) == ["meta/tasks.parquet", video.relative_to(folder).as_posix()]


def test_patterns_that_are_not_lerobots(old: Path) -> None:
    path = old / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_path": "data/{number}.parquet"}))

    with pytest.raises(DataError, match=r"info\.json: data_path: a pattern below data/ with \{episode_chunk\}"):
        read_info(old)


def test_the_refusal_of_v21_names_the_command(old: Path) -> None:
    with pytest.raises(DataError, match=r"`zk0 data convert local:cups FOLDER`, then name local:FOLDER as the source"):
        require_v3(read_info(old), "cups", "local:cups")
