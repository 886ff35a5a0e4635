"""What ``meta/`` says of a LeRobot dataset: its format, its files, its episodes and instructions; and one from the Hub.

With neither torch nor LeRobot: what cannot be used is refused before gigabytes are downloaded or decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from zk0.data.info import INFO as INFO
from zk0.data.info import Info
from zk0.data.info import read_info as read_info
from zk0.data.layout import read_table, real_numbers, require_file, whole_numbers
from zk0.errors import DataError
from zk0.hub import HubError, download, snapshot_folder

V21_TABLES = tuple(Path("meta") / name for name in ("tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl"))
TASKS = Path("meta/tasks.parquet")
_UNNAMED_INDEX = "__index_level_0__"  # what pandas calls an index without a name
_MOST_MISSING = 1000  # that are counted
# LeRobot 0.3.3 was the last to carry the converter from 2.0; it works on a repository of one's own on the Hub.
_OLDER = (
    "LeRobot 0.3.3 converts it to v2.1 in an environment of its own, on the Hub: `pip install lerobot==0.3.3` and "
    "`python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id=OWNER/NAME`; then `zk0 data convert "
    "hub:OWNER/NAME@main FOLDER`"
)

_META, _ALL = ["meta/*"], ["meta/*", "data/*", "videos/*"]


def require_v3(info: Info, name: str, source: str) -> None:
    """Refuse any format but v3.

    Args:
        info: The dataset's.
        name: For the message.
        source: As a person would write it in params or on the command line.

    Raises:
        DataError: Another format; says which command converts it, where one does.
    """
    version = info.version
    if version.startswith("v3"):
        return
    if version == "v2.1":
        raise DataError(
            f"{name} has LeRobot format v2.1; v3.0 is needed. Convert it into a new folder, which leaves it as it is: "
            f"`zk0 data convert {source} FOLDER`, then name local:FOLDER as the source"
        )
    if version.startswith(("v2", "2")):
        raise DataError(f"{name} has LeRobot format {version}; v3.0 is needed. {_OLDER}")
    if version.startswith(("v1", "1")):
        raise DataError(f"{name} has LeRobot format {version}; v3.0 is needed. Record it anew")
    raise DataError(f"{name}: unknown LeRobot format {version}; v3.0 is needed")


def missing_files(root: Path, info: Info) -> list[str]:
    """Files that the metadata of a v2.1 or v3 dataset speaks of and that are not there, relative to its folder.

    Of other formats it is not known: none.

    Raises:
        DataError: The metadata cannot be read.
    """
    version = info.version
    if version == "v2.1":
        named = _v21_files(info)
    elif version.startswith("v3"):
        named = _v3_files(root, info)
    else:
        return []
    missing = (path.as_posix() for path in named if not (root / path).is_file())
    return list(dict.fromkeys(islice(missing, _MOST_MISSING)))


def place_of(info: Info, episode: int) -> dict[str, int]:
    """What stands in a v2.1 dataset's patterns for an episode."""
    return {"episode_chunk": episode // (info.chunks_size or 1000), "episode_index": episode}


def _v21_files(info: Info) -> Iterator[Path]:
    yield from V21_TABLES
    for episode in range(info.total_episodes or 0):
        place = place_of(info, episode)
        yield info.data_file(**place)
        for camera in info.videos:
            yield info.video_file(camera, **place)


def _v3_files(root: Path, info: Info) -> Iterator[Path]:
    yield TASKS
    tables = episode_tables(root)
    if not tables:
        yield Path("meta/episodes/chunk-000/file-000.parquet")
    files: dict[str, Callable[..., Path]] = {"data": info.data_file}
    files |= {f"videos/{camera}": partial(info.video_file, camera) for camera in info.videos}
    for table in tables:
        for kind, file_of in files.items():
            columns = [f"{kind}/chunk_index", f"{kind}/file_index"]
            rows = read_table(root, table, columns)
            for chunk, file in dict.fromkeys(zip(*(rows.column(name).to_pylist() for name in columns), strict=True)):
                if isinstance(chunk, int) and isinstance(file, int):  # the check of the dataset says if they are not
                    yield file_of(chunk_index=chunk, file_index=file)


def fetch_dataset(repository: str, commit: str, any_format: bool = False) -> Path:
    """The folder of a dataset as it was at a commit. Never to be written to: it is the cache's.

    Args:
        repository: ``owner/name``.
        commit: Its full hash.
        any_format: Also formats that must be converted; else they are refused before anything large is downloaded.

    Raises:
        DataError: It is neither in the cache nor to be had, or has another format than v3; says what to do.
    """
    folder = cached_dataset(repository, commit)
    if folder is not None:
        return folder
    try:
        meta = download(repository, commit, "dataset", _META)
        if not any_format:
            require_v3(read_info(meta), repository, f"hub:{repository}@{commit}")
        folder = download(repository, commit, "dataset", _ALL)
    except HubError as error:
        raise DataError(f"{error}, or name a copy of it as local:FOLDER") from error
    if missing := missing_files(folder, read_info(folder)):
        raise DataError(
            f"hub:{repository}@{commit} lacks files that its metadata speaks of: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}; whoever published it must add them"
        )
    return folder


def cached_dataset(repository: str, commit: str) -> Path | None:
    """The folder of a dataset in the local cache, if all of its files are there."""
    folder = snapshot_folder(repository, commit, "dataset")
    if not (folder / INFO).is_file() or missing_files(folder, read_info(folder)):
        return None
    return folder


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


def read_episodes(root: Path, info: Info, cameras: Sequence[str]) -> Episodes:
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
            tables[episode] = info.data_file(chunk_index=chunk, file_index=file)
            for camera in cameras:
                prefix = f"videos/{camera}"
                chunk, file = (columns[f"{prefix}/{place}"][row] for place in places)
                path = root / info.video_file(camera, chunk_index=chunk, file_index=file)
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
