"""Which format a LeRobot dataset has, whether all of its files are there, and how one comes from the Hub.

Read from ``meta/`` alone, with neither torch nor LeRobot: what cannot be used is refused before
gigabytes are downloaded or decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from zk0.data.info import INFO as INFO
from zk0.data.info import read_info as read_info
from zk0.data.layout import episode_tables, read_table
from zk0.errors import DataError
from zk0.hub import HubError, download, snapshot_folder

V21_TABLES = tuple(Path("meta") / name for name in ("tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl"))
_MOST_MISSING = 1000  # that are counted
# LeRobot 0.3.3 was the last to carry the converter from 2.0; it works on a repository of one's own on the Hub.
_OLDER = (
    "LeRobot 0.3.3 converts it to v2.1 in an environment of its own, on the Hub: `pip install lerobot==0.3.3` and "
    "`python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id=OWNER/NAME`; then `zk0 data convert "
    "hub:OWNER/NAME@main FOLDER`"
)

_META, _ALL = ["meta/*"], ["meta/*", "data/*", "videos/*"]


def version_of(info: Mapping[str, Any]) -> str:
    """The format as LeRobot writes it, such as ``v3.0``; ``unknown`` where a dataset does not say."""
    return str(info.get("codebase_version") or "unknown")


def require_v3(info: Mapping[str, Any], name: str, source: str) -> None:
    """Refuse any format but v3.

    Args:
        info: The dataset's.
        name: For the message.
        source: As a person would write it in params or on the command line.

    Raises:
        DataError: Another format; says which command converts it, where one does.
    """
    version = version_of(info)
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


def missing_files(root: Path, info: Mapping[str, Any]) -> list[str]:
    """Files that the metadata of a v2.1 or v3 dataset speaks of and that are not there, relative to its folder.

    Of other formats it is not known: none.

    Raises:
        DataError: The metadata cannot be read.
    """
    version = version_of(info)
    if version == "v2.1":
        named = _v21_files(info)
    elif version.startswith("v3"):
        named = _v3_files(root, info)
    else:
        return []
    missing = (path.as_posix() for path in named if not (root / path).is_file())
    return list(dict.fromkeys(islice(missing, _MOST_MISSING)))


def _videos(info: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in info["features"].items() if feature.get("dtype") == "video"]


def place_of(info: Mapping[str, Any], episode: int) -> dict[str, int]:
    """What stands in a v2.1 dataset's patterns for an episode."""
    return {"episode_chunk": episode // int(info["chunks_size"] or 1000), "episode_index": episode}


def _v21_files(info: Mapping[str, Any]) -> Iterator[Path]:
    yield from V21_TABLES
    for episode in range(int(info["total_episodes"] or 0)):
        place = place_of(info, episode)
        yield Path(info["data_path"].format(**place))
        for camera in _videos(info):
            yield Path(info["video_path"].format(**place, video_key=camera))


def _v3_files(root: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    yield Path("meta/tasks.parquet")
    tables = episode_tables(root)
    if not tables:
        yield Path("meta/episodes/chunk-000/file-000.parquet")
    kinds = {"data": info["data_path"], **{f"videos/{camera}": info["video_path"] for camera in _videos(info)}}
    for table in tables:
        for kind, pattern in kinds.items():
            columns = [f"{kind}/chunk_index", f"{kind}/file_index"]
            rows = read_table(root, table, columns)
            for chunk, file in dict.fromkeys(zip(*(rows.column(name).to_pylist() for name in columns), strict=True)):
                if isinstance(chunk, int) and isinstance(file, int):  # the check of the dataset says if they are not
                    camera = kind.removeprefix("videos/")
                    yield Path(str(pattern).format(chunk_index=chunk, file_index=file, video_key=camera))


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
