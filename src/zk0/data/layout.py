"""The files of a dataset: there, inside its folder, and themselves; its tables, and what they say of episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zk0.errors import DataError

_LFS = b"version https://git-lfs"
_MOST_ROWS = 50_000_000
_MOST_TABLE_BYTES = 1 << 30

TASKS = Path("meta/tasks.parquet")
_UNNAMED_INDEX = "__index_level_0__"  # what pandas calls an index without a name


def require_file(root: Path, name: Path) -> Path:
    """The path of a dataset's file.

    Args:
        root: The dataset's folder.
        name: Relative to it.

    Raises:
        DataError: It is missing, lies outside the folder, or is a Git LFS pointer.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path} not found, though the dataset's metadata names it; restore it, or record again")
    whole, real = root.resolve(), path.resolve()
    allowed = [whole]
    if whole.parent.name == "snapshots":  # the Hub's cache keeps a commit's files as links to its blobs
        allowed.append(whole.parent.parent / "blobs")
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise DataError(
            f"{path} is a link to {real}, outside the dataset; its files must lie in its own folder: copy it there"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_LFS))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if start == _LFS:
        raise DataError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in {root}")
    return path


def read_table(root: Path, name: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of one of a dataset's tables, in their order.

    Raises:
        DataError: The file is missing, no table, too large, or lacks a column.
    """
    path = require_file(root, name)
    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            if missing := [column for column in columns if known.count(column) != 1]:
                wrong = "twice" if missing[0] in known else "not"
                raise DataError(f"{path}: column {missing[0]} is {wrong} in it; restore the file, or record again")
            _check_size(path, file.metadata, columns)
            table = file.read(columns=list(columns)).select(list(columns))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}; restore the file, or record again") from error
    return table


def _check_size(path: Path, metadata: pq.FileMetaData, columns: Sequence[str]) -> None:
    size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if any(column.path_in_schema == c or column.path_in_schema.startswith(f"{c}.") for c in columns):
                size += max(column.total_uncompressed_size, 0)
    if metadata.num_rows > _MOST_ROWS or size > _MOST_TABLE_BYTES:
        raise DataError(f"{path}: claims {metadata.num_rows} rows in {size} bytes; that is no recording's table")


def whole_numbers(table: pa.Table, column: str, where: str) -> np.ndarray:
    """A column as (N,) int64.

    Raises:
        DataError: It holds something else, or a null.
    """
    values = table.column(column)
    if not pa.types.is_integer(values.type):
        raise DataError(f"{where}: {column} holds {values.type}; whole numbers were expected")
    return _plain(values, column, where, pa.int64())


def real_numbers(table: pa.Table, column: str, where: str) -> np.ndarray:
    """A column as (N,) float64, all finite.

    Raises:
        DataError: It holds something else, a null or NaN.
    """
    values = table.column(column)
    if not pa.types.is_integer(values.type) and not pa.types.is_floating(values.type):
        raise DataError(f"{where}: {column} holds {values.type}; numbers were expected")
    found = _plain(values, column, where, pa.float64())
    if not np.isfinite(found).all():
        raise DataError(f"{where}: {column} of row {int(np.argmin(np.isfinite(found)))} is not a finite number")
    return found


def _plain(values: pa.ChunkedArray, column: str, where: str, kind: pa.DataType) -> np.ndarray:
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(f"{where}: {column} of row {row} is null; restore the file, or record again")
    try:
        found: Any = values.cast(kind).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"{where}: {column} cannot be read: {error}") from error
    return np.asarray(found)


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


def episode_tables(root: Path) -> list[Path]:
    """The tables below ``meta/episodes`` of a v3 dataset, relative to its folder, in order: all that LeRobot reads."""
    return sorted(path.relative_to(root) for path in (root / "meta" / "episodes").glob("*/*.parquet"))


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
