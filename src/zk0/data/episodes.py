"""What a v3 dataset's metadata says of its episodes and instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zk0.data.formats import episode_tables
from zk0.data.layout import read_table, real_numbers, require_file, whole_numbers
from zk0.errors import DataError

TASKS = Path("meta/tasks.parquet")
_UNNAMED_INDEX = "__index_level_0__"  # what pandas calls an index without a name


@dataclass(frozen=True)
class Span:
    """Where an episode's pictures of one camera lie: a stretch of a video file, in seconds."""

    path: Path
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Episodes:
    """What ``meta/episodes`` says.

    Attributes:
        lengths: Episode to its number of frames.
        tables: Episode to the file that has its rows, relative to the dataset's folder.
        spans: Camera to episode to its stretch of video.
    """

    lengths: Mapping[int, int]
    tables: Mapping[int, Path]
    spans: dict[str, dict[int, Span]]


def read_episodes(root: Path, info: Mapping[str, Any], cameras: Sequence[str]) -> Episodes:
    """Read ``meta/episodes``.

    Args:
        root: The dataset's folder.
        info: Its info.
        cameras: Those that have videos.

    Raises:
        DataError: It is missing, lacks a column or a value, or knows an episode twice.
    """
    lengths: dict[int, int] = {}
    tables: dict[int, Path] = {}
    spans: dict[str, dict[int, Span]] = {camera: {} for camera in cameras}
    found = episode_tables(root)
    if not found:
        raise DataError(f"{root}: no files below meta/episodes/; the recording was not finished")
    places = ("chunk_index", "file_index")
    whole = ["episode_index", "length", *(f"data/{place}" for place in places)]
    whole += [f"videos/{camera}/{place}" for camera in cameras for place in places]
    real = [f"videos/{camera}/{end}" for camera in cameras for end in ("from_timestamp", "to_timestamp")]
    for name in found:
        table, where = read_table(root, name, whole + real), str(root / name)
        columns = {column: whole_numbers(table, column, where).tolist() for column in whole}
        columns |= {column: real_numbers(table, column, where).tolist() for column in real}
        for row, episode in enumerate(columns["episode_index"]):
            if episode in lengths:
                raise DataError(f"{where}: episode {episode} is there twice; restore the file, or record again")
            if episode < 0 or columns["length"][row] < 1:
                raise DataError(f"{where}: episode {episode} has {columns['length'][row]} frames; delete or repair it")
            lengths[episode] = columns["length"][row]
            chunk, file = (columns[f"data/{place}"][row] for place in places)
            tables[episode] = Path(info["data_path"].format(chunk_index=chunk, file_index=file))
            for camera in cameras:
                prefix = f"videos/{camera}"
                chunk, file = (columns[f"{prefix}/{place}"][row] for place in places)
                path = root / info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=file)
                start_s, end_s = columns[f"{prefix}/from_timestamp"][row], columns[f"{prefix}/to_timestamp"][row]
                spans[camera][episode] = Span(path, start_s, end_s)
    if not lengths:
        raise DataError(f"{root} is empty: meta/episodes knows no episode")
    return Episodes(lengths, tables, spans)


def read_tasks(root: Path) -> dict[int, str]:
    """Task index to instruction, by ``meta/tasks.parquet``.

    LeRobot keeps instructions in the table's index; some converters write them as a column ``task``.

    Raises:
        DataError: The file is missing, or an instruction is missing, empty, or no text.
    """
    path = require_file(root, TASKS)
    try:
        known = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read: {str(error).splitlines()[0]}; restore it") from error
    column = next((name for name in ("task", _UNNAMED_INDEX) if name in known), None)
    if column is None:
        raise DataError(f"{path}: has no instructions; a column 'task' was expected beside task_index")
    table = read_table(root, TASKS, [column, "task_index"])
    if not pa.types.is_string(table.column(column).type) and not pa.types.is_large_string(table.column(column).type):
        raise DataError(f"{path}: instructions are {table.column(column).type}; text was expected in column '{column}'")
    tasks: dict[int, str] = {}
    indices = whole_numbers(table, "task_index", str(path)).tolist()
    for index, task in zip(indices, table.column(column).to_pylist(), strict=True):
        if not task or not task.strip():
            raise DataError(f"{path}: the instruction of task {index} is {'empty' if task is not None else 'null'}")
        if tasks.setdefault(index, task) != task:
            raise DataError(f"{path}: task {index} has two instructions, '{tasks[index]}' and '{task}'")
    return tasks
