"""Ways in which a recording is spoiled, and what is said of each: a kind of fault has a function."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

STATE, ACTION = "observation.state", "action"
TOP, WRIST = "observation.images.top", "observation.images.wrist"
DATA = Path("data/chunk-000/file-000.parquet")
EPISODES = Path("meta/episodes/chunk-000/file-000.parquet")
TASKS = Path("meta/tasks.parquet")
VIDEO = Path(f"videos/{TOP}/chunk-000/file-000.mp4")

Spoil = Callable[[Path], Any]
SPOILED: dict[str, tuple[Spoil, str]] = {}
SOUND: dict[str, Spoil] = {}


def refused(pattern: str) -> Callable[[Spoil], Spoil]:
    """A fault whose refusal matches ``pattern``; named after its function."""

    def note(spoil: Spoil) -> Spoil:
        SPOILED[spoil.__name__] = (spoil, pattern)
        return spoil

    return note


def passes(spoil: Spoil) -> Spoil:
    """What looks like a fault and is none."""
    SOUND[spoil.__name__] = spoil
    return spoil


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change ``meta/info.json``."""
    path = root / "meta" / "info.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Change a table in place, or by what ``change`` returns."""
    rows = pd.read_parquet(path)
    changed = change(rows)
    (rows if changed is None else changed).to_parquet(path)


def set_cell(path: Path, column: str, row: int, value: Any) -> None:
    """Set one cell of a table."""

    def change(rows: pd.DataFrame) -> None:
        values = rows[column].tolist()
        values[row] = value
        rows[column] = values

    edit_table(path, change)


def edit_vectors(root: Path, feature: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change all values of states or actions: (N, 6) in, (N, 6) out."""

    def edit(rows: pd.DataFrame) -> None:
        rows[feature] = list(change(np.stack(rows[feature])).astype(np.float32))

    edit_table(root / DATA, edit)


def both(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change states and actions alike."""
    for feature in (STATE, ACTION):
        edit_vectors(root, feature, change)


def with_gripper(values: np.ndarray, gripper: np.ndarray) -> np.ndarray:
    """Values whose last column is another."""
    return np.column_stack([values[:, :5], gripper])


# What metadata say


def _feature(info: dict[str, Any], name: str, **changes: Any) -> None:
    info["features"][name].update(changes)


def _info(name: str, pattern: str, change: Callable[[dict[str, Any]], Any]) -> None:
    SPOILED[name] = (lambda root: edit_info(root, change), pattern)


for _value in (None, 0, -10, "ten", [10], float("nan"), 10**400, True):
    _info(f"fps_{str(_value)[:9]}", r"meta/info\.json: fps: ", lambda info, value=_value: info.update(fps=value))
_info("fps_missing", "a mapping with fps and features was expected", lambda info: info.pop("fps"))
_info("features_null", "a mapping with fps and features was expected", lambda info: info.update(features=None))
_info("feature_null", rf"features\.{ACTION}: ", lambda info: info["features"].update({ACTION: None}))
_info("shape_null", r"features\.action\.shape: ", lambda info: _feature(info, ACTION, shape=None))
_info("shape_empty", r"action has shape \[\]; \[6\] was expected", lambda info: _feature(info, ACTION, shape=[]))
_info("shape_absurd", r"shape\.0: .*found 999999999", lambda info: _feature(info, TOP, shape=[999999999, 9, 3]))
_info("dtype_null", r"features\.action\.dtype: ", lambda info: _feature(info, ACTION, dtype=None))
_info("names_null", r"action is named .*; expected shoulder_pan", lambda info: _feature(info, ACTION, names=None))
_info("names_text", "a list of names was expected", lambda info: _feature(info, ACTION, names="shoulder"))
_info("names_nulls", r"features\.action\.names\.0: ", lambda info: _feature(info, ACTION, names=[None] * 6))
_info("version_null", "unknown LeRobot format unknown", lambda info: info.update(codebase_version=None))
_info(
    "video_path_null", "video_path: a pattern below videos/ .* it is missing", lambda info: info.update(video_path=None)
)
_info("data_path_gone", "data_path: a pattern below data/ .* it is missing", lambda info: info.pop("data_path"))
for _pattern in (
    "/etc/{chunk_index}{file_index}",
    "data/../../{chunk_index}{file_index}",
    "data/{file_index.__class__}",
):
    _info(f"data_path_{_pattern[:9]}", "data_path: ", lambda info, value=_pattern: info.update(data_path=value))
_info("path_absurd", "data_path: ", lambda info: info.update(data_path="data/{chunk_index:0999999999d}/{file_index}"))
_info("path_unclosed", "data_path: ", lambda info: info.update(data_path="data/{chunk_index"))
_info(
    "camera_climbs",
    "is no name of a feature",
    lambda info: info["features"].update({"observation.images.../x": info["features"][TOP]}),
)
_info("total_episodes", "says total_episodes 50, and there are 4", lambda info: info.update(total_episodes=50))
_info("total_frames", "says total_frames 9999, and there are 48", lambda info: info.update(total_frames=9999))
_info("total_null_text", r"total_frames: ", lambda info: info.update(total_frames="many"))
_info(
    "size_untrue",
    "pictures of .*top are 32x32 .* says 480x640",
    lambda info: _feature(info, TOP, shape=[480, 640, 3]),
)
_info(
    "size_turned",
    "pictures of .*top are 32x32 .* says 32x64",
    lambda info: _feature(info, TOP, shape=[32, 64, 3]),
)
_info("camera_of_no_kind", "video or image was expected", lambda info: _feature(info, TOP, dtype=""))
_info("camera_flat", "height, width and channels were expected", lambda info: _feature(info, TOP, shape=[32, 32]))
_info(
    "camera_lost",
    f"column videos/{TOP}2/chunk_index is not in it",
    lambda info: info["features"].update({f"{TOP}2": info["features"][TOP]}),
)


@refused("nested more than 12 deep")
def info_deep(root: Path) -> None:
    (root / "meta/info.json").write_text('{"fps": 10, "features": {}, "x": ' + "[" * 90000 + "]" * 90000 + "}")


@refused("bytes, and at most 4194304 were expected")
def info_large(root: Path) -> None:
    edit_info(root, lambda info: info.update(padding="x" * (5 << 20)))


@refused("is no text in UTF-8")
def info_binary(root: Path) -> None:
    (root / "meta/info.json").write_bytes(bytes(range(256)))


# Files


def _pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")


for _file in (DATA, EPISODES, TASKS, VIDEO, Path("meta/info.json")):
    SPOILED[f"pointer_{_file.parts[0]}_{_file.name}"] = (
        lambda root, file=_file: _pointer(root / file),
        "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    )
    SPOILED[f"lost_{_file.parts[0]}_{_file.name}"] = (
        lambda root, file=_file: (root / file).unlink(),
        "not found|no data files below data/|no files below meta/episodes/",
    )
for _file in (DATA, EPISODES, TASKS):
    SPOILED[f"cut_{_file.parts[0]}_{_file.name}"] = (
        lambda root, file=_file: (root / file).write_bytes((root / file).read_bytes()[:-60]),
        rf"{_file.name}: cannot be read",
    )


@refused("is a link to .*outside the dataset")
def video_leads_outside(root: Path) -> None:
    shutil.move(root / VIDEO, root.parent / "secret.mp4")
    (root / VIDEO).symlink_to(root.parent / "secret.mp4")


@refused("is a link to .*outside the dataset")
def tables_lead_outside(root: Path) -> None:
    shutil.move(root / "data", root.parent / "elsewhere")
    (root / "data").symlink_to(root.parent / "elsewhere")


@refused("names no episode in this file")
def table_doubled(root: Path) -> None:
    shutil.copy(root / DATA, root / DATA.with_name("file-001.parquet"))


@refused(r"file-001\.parquet not found, though the dataset's metadata names it")
def table_lost(root: Path) -> None:
    edit_table(root / DATA, lambda rows: rows[rows.episode_index < 2])
    edit_table(root / EPISODES, lambda rows: rows.__setitem__("data/file_index", (rows.episode_index >= 2).astype(int)))


@refused(r"file-001\.mp4 not found")
def video_lost(root: Path) -> None:
    edit_table(root / EPISODES, lambda rows: rows.__setitem__(f"videos/{TOP}/file_index", rows.episode_index // 2))


@refused("holds no video|cannot be read as a video")
def video_is_text(root: Path) -> None:
    (root / VIDEO).write_text("not a video" * 100)


@refused(r"the picture of episode 1, frame \d+, cannot be decoded")
def video_damaged(root: Path) -> None:
    content = bytearray((root / VIDEO).read_bytes())
    start = content.find(b"mdat")
    start += (len(content) - start) // 3
    content[start : start + 400] = bytes(400)
    (root / VIDEO).write_bytes(content)


@refused("cannot be decoded|has no picture for|cannot be read as a video")
def video_cut_off(root: Path) -> None:
    content = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(content[: 3 * len(content) // 4])


@refused("is in a codec that cannot be decoded")
def video_of_unknown_codec(root: Path) -> None:
    (root / VIDEO).write_bytes((root / VIDEO).read_bytes().replace(b"avc1", bytes(4)))


@refused("cannot be read as a video, from episode 0, frame 0 on")
def video_with_words_that_are_no_text(root: Path) -> None:
    content = bytearray((root / VIDEO).read_bytes())
    content[8] = 0x80  # the first letter of the file's brand
    (root / VIDEO).write_bytes(content)


# Episodes and frames


@refused("episode 1: frame 4 is missing")
def frames_dropped(root: Path) -> None:
    edit_table(root / DATA, lambda rows: rows[~((rows.episode_index == 1) & rows.frame_index.isin([4, 5]))])


@refused("episode 2 has 10 frames in data/, and meta/episodes says 12")
def end_dropped(root: Path) -> None:
    edit_table(root / DATA, lambda rows: rows[~((rows.episode_index == 2) & (rows.frame_index >= 10))])


@refused("episode 0: frame 3 is there twice")
def frame_doubled(root: Path) -> None:
    edit_table(root / DATA, lambda rows: pd.concat([rows, rows[3:4]]))


@refused("data/ has episode 3, which meta/episodes does not know")
def episode_unknown(root: Path) -> None:
    edit_table(root / EPISODES, lambda rows: rows[rows.episode_index < 3])


@refused("meta/episodes knows episode 1, and .* has no frames of it")
def episode_without_frames(root: Path) -> None:
    edit_table(root / DATA, lambda rows: rows[rows.episode_index != 1])


@refused("episode 1 is there twice")
def episode_doubled(root: Path) -> None:
    edit_table(root / EPISODES, lambda rows: pd.concat([rows, rows[1:2]]))


@refused("episode 0 is there twice")
def metadata_doubled(root: Path) -> None:
    """Under another name, which LeRobot reads as well."""
    shutil.copy(root / EPISODES, root / EPISODES.with_name("copy.parquet"))


@refused("length of row 2 is null|length holds double")
def length_null(root: Path) -> None:
    set_cell(root / EPISODES, "length", 2, None)


@refused("episode 2 has 0 frames")
def length_zero(root: Path) -> None:
    set_cell(root / EPISODES, "length", 2, 0)


@refused(r"episode 1, frame 6 has timestamp 2\.600 s, and 0\.600 was expected of it \(6 frames are off\)")
def time_jumps(root: Path) -> None:
    late = lambda rows: 2 * ((rows.episode_index == 1) & (rows.frame_index >= 6))  # noqa: E731
    edit_table(root / DATA, lambda rows: rows.__setitem__("timestamp", (rows.timestamp + late(rows)).astype("f4")))


@refused(r"episode 0, frame 5 has timestamp 0\.550 s")
def time_of_one_frame(root: Path) -> None:
    set_cell(root / DATA, "timestamp", 5, 0.55)


@refused("timestamp of row 5 is null|timestamp of row 5 is not a finite number")
def time_null(root: Path) -> None:
    set_cell(root / DATA, "timestamp", 5, None)


@refused("episodes 1 and 2 claim the same pictures")
def stretches_overlap(root: Path) -> None:
    def move(rows: pd.DataFrame) -> None:
        for end in ("from_timestamp", "to_timestamp"):
            rows[f"videos/{TOP}/{end}"] -= 1.2 * (rows.episode_index == 2)

    edit_table(root / EPISODES, move)


@refused("has no picture for episode 3, frame 7")
def stretch_leaves_the_file(root: Path) -> None:
    def move(rows: pd.DataFrame) -> None:
        for end in ("from_timestamp", "to_timestamp"):
            rows[f"videos/{TOP}/{end}"] += 0.5 * (rows.episode_index == 3)

    edit_table(root / EPISODES, move)


@refused(r"gives episode 2 the stretch from 2\.400 to 2\.600 s, and its 12 frames need 1\.200 s")
def stretch_too_short(root: Path) -> None:
    set_cell(root / EPISODES, f"videos/{TOP}/to_timestamp", 2, 2.6)


@refused("from_timestamp of row 1 is (null|not a finite number)")
def stretch_null(root: Path) -> None:
    set_cell(root / EPISODES, f"videos/{TOP}/from_timestamp", 1, None)


# Instructions


def _tasks(root: Path, **columns: list[Any]) -> None:
    pd.DataFrame(columns).to_parquet(root / TASKS, index=False)


@passes
def tasks_as_a_column(root: Path) -> None:
    _tasks(root, task_index=[0, 1], task=["lift the cube", "drop the cube"])


@refused("has no instructions; a column 'task' was expected")
def tasks_without_words(root: Path) -> None:
    _tasks(root, task_index=[0, 1])


@refused("instructions are int64; text was expected")
def tasks_numbers(root: Path) -> None:
    _tasks(root, task_index=[0, 1], task=[0, 1])


@refused("the instruction of task 1 is empty")
def task_empty(root: Path) -> None:
    _tasks(root, task_index=[0, 1], task=["lift the cube", " "])


@refused("the instruction of task 1 is null")
def task_null(root: Path) -> None:
    _tasks(root, task_index=[0, 1], task=["lift the cube", None])


@refused("task 0 has two instructions")
def task_doubled(root: Path) -> None:
    _tasks(root, task_index=[0, 0], task=["lift the cube", "drop the cube"])


@refused(r"episode 1 has task 1, which meta/tasks\.parquet does not know")
def task_unknown(root: Path) -> None:
    _tasks(root, task_index=[0], task=["lift the cube"])


@refused("task_index of row 4 is null|task_index holds double")
def task_of_a_frame_null(root: Path) -> None:
    set_cell(root / DATA, "task_index", 4, None)


# Names


@passes
def names_under_axes(root: Path) -> None:
    def change(info: dict[str, Any]) -> None:
        for feature in (STATE, ACTION):
            info["features"][feature]["names"] = {"axes": info["features"][feature]["names"]}

    edit_info(root, change)


@passes
def names_nested(root: Path) -> None:
    edit_info(root, lambda info: info["features"][STATE].update(names=[info["features"][STATE]["names"]]))


@passes
def names_with_places(root: Path) -> None:
    def change(info: dict[str, Any]) -> None:
        info["features"][STATE]["names"] = {name: n for n, name in enumerate(info["features"][STATE]["names"])}

    edit_info(root, change)


# Units

_STEP = 360 / 4095


@refused("states reach .*: these are raw counts of the motors")
def raw_counts(root: Path) -> None:
    both(root, lambda values: 2048 + np.rint(values / _STEP))


@refused("actions reach .*: these are raw counts of the motors")
def raw_counts_of_actions(root: Path) -> None:
    edit_vectors(root, ACTION, lambda values: 2048 + np.rint(values / _STEP))


@refused("states of the arm stay within .* as radians do")
def radians(root: Path) -> None:
    both(root, np.deg2rad)


@refused("actions of the arm stay within .* as radians do")
def radians_of_actions(root: Path) -> None:
    edit_vectors(root, ACTION, np.deg2rad)


@refused("states of the arm stay within .* as shares from 0 to 1 do")
def shares(root: Path) -> None:
    both(root, lambda values: values / 200)


@refused("its states are degrees and its actions normalised")
def actions_normalised(root: Path) -> None:
    edit_vectors(root, ACTION, lambda v: with_gripper(np.rint(v / _STEP) * (200 / 2300), v[:, 5]))


@refused("in other units")
def actions_scaled(root: Path) -> None:
    edit_vectors(root, ACTION, lambda values: values * 0.5 + 0.013)


@refused("the gripper's states run from .* in steps finer than its motor has")
def gripper_as_share(root: Path) -> None:
    both(root, lambda values: with_gripper(values, values[:, 5] / 100))


@refused("the gripper's actions run from .*; 0 .closed. to 100 .open. was expected")
def gripper_of_actions_as_share(root: Path) -> None:
    edit_vectors(root, ACTION, lambda values: with_gripper(values, values[:, 5] / 100))


@refused(r"the gripper's states run from 0\.00 to 1\.00")
def gripper_switched(root: Path) -> None:
    both(root, lambda values: with_gripper(values, values[:, 5] > np.median(values[:, 5])))


@refused("the arm's states never change in 48 frames")
def arm_never_moved(root: Path) -> None:
    edit_vectors(root, STATE, lambda values: np.tile(values[0], (len(values), 1)))


@refused("the arm's actions never change in 48 frames")
def leader_never_moved(root: Path) -> None:
    edit_vectors(root, ACTION, lambda values: np.tile(values[0], (len(values), 1)))


@passes
def gripper_never_used(root: Path) -> None:
    both(root, lambda values: with_gripper(values, np.linspace(0.4, 0.9, len(values)).round(1)))
