"""Datasets that would spoil training are refused, and the message says which and why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zk0.data.check import check_dataset
from zk0.data.dataset import DatasetFolder
from zk0.data.pictures import check_pictures
from zk0.data.survey import survey
from zk0.errors import DataError
from zk0.params import DataParams
from zk0.so100 import ACTION, JOINTS, STATE

NAME = "zk0/cubes"
TOP = "observation.images.top"
V21_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V21_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the recording, to be spoilt."""
    return Path(shutil.copytree(recorded, tmp_path / "cubes"))


def edit_info(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_numbers(folder: Path, feature: str, change: Callable[[list[list[float]]], Any]) -> None:
    (path,) = (folder / "data").rglob("*.parquet")
    table = pq.read_table(path)
    values = table.column(feature).to_pylist()
    change(values)
    column = pa.array(values, type=pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index(feature), feature, column), path)


def refusal(folder: Path, fps: int = 10) -> str:
    with pytest.raises(DataError) as refused:
        check_dataset(DatasetFolder(folder, NAME), fps)
    return str(refused.value)


def test_sound_recording_passes(recorded: Path) -> None:
    dataset = DatasetFolder(recorded, NAME)

    check_dataset(dataset, 10)

    assert dataset.cameras == (TOP, "observation.images.wrist")
    assert dataset.image_shape(TOP) == (3, 96, 96)
    assert dataset.rows.states.shape == (len(dataset.table), 6)
    assert sorted(dataset.task_names.values()) == ["touch the green cube", "touch the red cube"]


def test_missing_metadata(folder: Path) -> None:
    (folder / "meta" / "info.json").unlink()

    assert refusal(folder) == f"{folder} is no LeRobot dataset: {folder}/meta/info.json not found"


def test_metadata_that_is_not_json(folder: Path) -> None:
    (folder / "meta" / "info.json").write_text("{")

    assert "meta/info.json is not valid JSON" in refusal(folder)


def test_old_format_comes_with_the_command(folder: Path) -> None:
    edit_info(folder, lambda info: info.update(codebase_version="v2.1", data_path=V21_DATA, video_path=V21_VIDEO))

    message = refusal(folder)

    assert f"{NAME} has LeRobot format v2.1; v3.0 is needed" in message
    assert f"`zk0 data convert {folder} FOLDER`" in message


def test_unknown_format(folder: Path) -> None:
    edit_info(folder, lambda info: info.update(codebase_version="v9.0"))

    assert "unknown LeRobot format v9.0" in refusal(folder)


def test_other_rate(folder: Path) -> None:
    message = refusal(folder, fps=30)

    assert message.startswith(f"{NAME} has 10 frames per second, the federation 30 (data.fps): ")
    assert "choose a data.fps of which every site's rate is a whole multiple" in message


def test_no_camera(folder: Path) -> None:
    def blind(info: dict[str, Any]) -> None:
        info["features"] = {name: f for name, f in info["features"].items() if "images" not in name}

    edit_info(folder, blind)

    assert "has no camera; features named observation.images.NAME were expected" in refusal(folder)


@pytest.mark.parametrize("feature", [STATE, ACTION])
def test_missing_feature(folder: Path, feature: str) -> None:
    edit_info(folder, lambda info: info["features"].pop(feature))

    assert refusal(folder) == f"{NAME} has no {feature}"


def test_joints_of_another_robot(folder: Path) -> None:
    edit_info(folder, lambda info: info["features"][ACTION].update(names=[f"joint_{n}" for n in range(6)]))

    assert refusal(folder) == (
        f"{NAME}: action is named joint_0, joint_1, joint_2, joint_3, joint_4, joint_5; expected {', '.join(JOINTS)}"
    )


def test_joints_in_another_order(folder: Path) -> None:
    edit_info(folder, lambda info: info["features"][STATE]["names"].reverse())

    assert f"{NAME}: observation.state is named gripper, wrist_roll" in refusal(folder)


@pytest.mark.parametrize(
    "names",
    [list(JOINTS), [f"main_{joint}" for joint in JOINTS], {"motors": [f"main_{joint}" for joint in JOINTS]}],
    ids=["bare", "main_", "motors"],
)
def test_joints_as_older_recorders_name_them(folder: Path, names: Any) -> None:
    edit_info(folder, lambda info: info["features"][STATE].update(names=names))

    check_dataset(DatasetFolder(folder, NAME), 10)


def test_other_size(folder: Path) -> None:
    edit_info(folder, lambda info: info["features"][STATE].update(shape=[7]))

    assert refusal(folder) == f"{NAME}: observation.state has 7 values, an SO-100 has 6"


def test_two_arms_are_told_before_a_conversion_that_could_not_help(folder: Path) -> None:
    both = {"shape": [12], "names": [f"arm{arm}_j{joint}" for arm in (1, 2) for joint in range(1, 7)]}
    edit_info(folder, lambda info: info["features"][STATE].update(both))
    edit_info(folder, lambda info: info.update(codebase_version="v2.1", data_path=V21_DATA, video_path=V21_VIDEO))
    params = DataParams(sites={"mine": f"local:{folder}"}, fps=10)

    with pytest.raises(DataError, match="has 12 values, an SO-100 has 6; record each arm as a site of its own"):
        survey("mine", f"local:{folder}", "", DatasetFolder(folder, NAME), params, folder.parent)


def test_no_episodes(folder: Path) -> None:
    edit_info(folder, lambda info: info.update(total_episodes=0))

    assert refusal(folder) == f"{NAME} is empty: it has no episodes"


def test_no_data_files(folder: Path) -> None:
    shutil.rmtree(folder / "data")

    assert "no data files below data/; the recording was not finished" in refusal(folder)


def test_rows_of_other_sizes(folder: Path) -> None:
    edit_numbers(folder, STATE, lambda values: values[3].pop())

    assert "observation.state holds values of shapes [(5,), (6,)]" in refusal(folder)


@pytest.mark.parametrize(("feature", "value"), [(STATE, float("nan")), (ACTION, float("inf")), (ACTION, None)])
def test_values_that_are_not_finite(folder: Path, feature: str, value: float | None) -> None:
    table = DatasetFolder(folder, NAME).table
    row = int(np.flatnonzero((table["episode_index"] == 2) & (table["frame_index"] == 4))[0])

    def spoil(values: list[list[float]]) -> None:
        values[row][2] = values[row + 1][0] = value  # type: ignore[call-overload]

    edit_numbers(folder, feature, spoil)

    assert refusal(folder) == (
        f"{NAME}: {feature} has 2 frames with missing or NaN values, the first in episode 2, frame 4, elbow_flex; "
        "remove or repair that episode"
    )


def test_video_that_was_cut_off(folder: Path, tmp_path: Path) -> None:
    """Its beginning can still be read; the picture named is the first that cannot."""
    (video,) = (folder / "videos" / TOP).rglob("*.mp4")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    dataset = DatasetFolder(folder, NAME)

    with pytest.raises(DataError) as refused:
        check_pictures(dataset, [TOP], tmp_path)

    found = re.match(rf"{re.escape(str(video))}: has no picture for episode (\d), frame \d+, at ", str(refused.value))
    assert found and 0 < int(found[1]) < 8
    assert dataset.decode(int(found[1]) - 1, TOP, [0.0, 0.1]).shape == (2, 3, 96, 96)


def test_video_of_which_little_is_left(folder: Path, tmp_path: Path) -> None:
    (video,) = (folder / "videos" / TOP).rglob("*.mp4")
    video.write_bytes(video.read_bytes()[:100])

    with pytest.raises(DataError, match=r"holds no video, so episode 0, frame 0 has no picture"):
        check_pictures(DatasetFolder(folder, NAME), [TOP], tmp_path)


def test_video_that_is_missing(folder: Path) -> None:
    (video,) = (folder / "videos" / TOP).rglob("*.mp4")
    video.unlink()

    assert refusal(folder).startswith(f"{video} not found, though the dataset's metadata names it")


def test_rows_are_those_of_the_table(recorded: Path) -> None:
    dataset = DatasetFolder(recorded, NAME)
    table, rows = dataset.table, dataset.rows

    assert rows.states.tobytes() == np.stack(table[STATE].tolist()).astype(np.float32).tobytes()
    assert rows.actions.tobytes() == np.stack(table[ACTION].tolist()).astype(np.float32).tobytes()
    for name, values in (("episode", rows.episodes), ("task", rows.tasks)):
        assert values.tolist() == table[f"{name}_index"].tolist()
    assert rows.timestamps.tolist() == table["timestamp"].tolist()
    for episode, (start, stop) in rows.bounds.items():
        assert set(rows.episodes[start:stop]) == {episode} and rows.timestamps[start] == 0
    assert [stop for _, stop in rows.bounds.values()][-1] == len(table)


def test_rows_in_another_order_come_in_order(recorded: Path, folder: Path) -> None:
    (path,) = (folder / "data").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(1).permutation(len(table)))), path)

    one, other = DatasetFolder(folder, NAME).rows, DatasetFolder(recorded, NAME).rows

    assert one.states.tobytes() == other.states.tobytes() and one.bounds == other.bounds


def test_rows_of_other_sizes_are_refused_by_whoever_reads_them(folder: Path) -> None:
    edit_numbers(folder, STATE, lambda values: values[3].pop())

    with pytest.raises(DataError, match=r"observation\.state holds vectors of sizes \[6, 5\]; `zk0 prepare` says"):
        _ = DatasetFolder(folder, NAME).rows


def test_metadata_without_episodes(folder: Path) -> None:
    shutil.rmtree(folder / "meta" / "episodes")

    with pytest.raises(DataError, match="no files below meta/episodes/; the recording was not finished"):
        DatasetFolder(folder, NAME).decode(0, TOP, [0.0])


def test_metadata_that_does_not_say_where_a_video_is(folder: Path) -> None:
    (path,) = (folder / "meta" / "episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([f"videos/{TOP}/file_index"]), path)

    with pytest.raises(DataError, match=r"column videos/observation\.images\.top/file_index is not in it"):
        DatasetFolder(folder, NAME).decode(0, TOP, [0.0])


def test_digest_of_an_episode_is_of_numbers_and_sentence(recorded: Path, folder: Path) -> None:
    def digests(root: Path) -> list[str]:
        dataset = DatasetFolder(root, NAME)
        return [dataset.episode_digest(episode) for episode in dataset.rows.bounds]

    before = digests(recorded)
    edit_numbers(folder, ACTION, lambda values: values[0].__setitem__(0, values[0][0] + 1e-3))
    after = digests(folder)

    assert len(set(before)) == 8
    assert after[0] != before[0] and after[1:] == before[1:]
