"""Datasets of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from zk0.data.formats import INFO, missing_files, read_info, require_v3
from zk0.errors import DataError
from zk0.hub import HubError, download, snapshot_folder

_META, _ALL = ["meta/*"], ["meta/*", "data/*", "videos/*"]


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
