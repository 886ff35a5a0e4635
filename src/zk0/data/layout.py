"""The files of a dataset: there, inside its folder, and themselves; the columns of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zk0.errors import DataError

_LFS = b"version https://git-lfs"
_MOST_ROWS = 50_000_000
_MOST_TABLE_BYTES = 1 << 30


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
