"""Back up and restore what of a deployment cannot be made again, as one private file.

What DVC and git have is not in it: recordings, results, checkpoints, code. Nor is the SuperLink's database: sites are
registered with a new one, and a run goes on from its state.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import xxhash

from zk0 import __version__
from zk0.digests import digest_file
from zk0.errors import StageError
from zk0.files import NEW, OLD, BadFileError, new_folder, read_mapping, write_json
from zk0.network.config import CONFIG
from zk0.network.security.files import SECURITY
from zk0.network.server.services import GATEWAY_FILE
from zk0.params import PARAMS_FILE
from zk0.private_files import git_takes, keep_from_git
from zk0.services.process import RUN, Services
from zk0.tracking import ARTIFACTS, DATABASE

_CONTENTS = "backup.json"
_FORMAT = 2  # 1 had xxh3 for digests; its backups are still read
_FOLDERS = (SECURITY, Path("state"), ARTIFACTS)
_FILES = (PARAMS_FILE, CONFIG, GATEWAY_FILE, Path("sources.lock.json"), Path("dvc.lock"))
# Waiting replies and locks are of no use later; a credential store is made anew from the token.
_LEFT_OUT = ("waiting", "*.lock", f"*{NEW}", f"*{OLD}")


def back_up(root: Path, out: Path) -> list[str]:
    """Write a backup; services and a run may go on meanwhile.

    Args:
        root: Project folder.
        out: The file, which only its owner may read: it holds the federation's keys.

    Returns:
        What is in it, by its top name.

    Raises:
        StageError: There is a file already, or nothing to back up.
    """
    if out.exists():
        raise StageError(f"{out} is there already, and nothing overwrites a backup; choose another name")
    fresh = not out.parent.exists()
    with new_folder(out) as temporary:  # 0700
        _keep_from_git(out, temporary, fresh)
        staged = temporary / "content"
        staged.mkdir()
        _stage(root, staged)
        names = sorted(path.name for path in staged.iterdir())
        if not names:
            raise StageError(f"{root} holds nothing to back up: no {SECURITY}, no {DATABASE}, no {PARAMS_FILE}")
        write_json(staged / _CONTENTS, _contents(staged))
        whole = temporary / "whole.tar.gz"
        with tarfile.open(whole, "w:gz", compresslevel=1) as archive:
            archive.add(staged, arcname=".")
        whole.chmod(0o600)
        whole.replace(out)
    return names


def restore(file: Path, root: Path) -> list[str]:
    """Put a backup back into a project where nothing of it is.

    Args:
        file: A backup.
        root: Project folder.

    Returns:
        What was put back, by its top name.

    Raises:
        StageError: It is no backup, or damaged; something of it is there already; or services run. Nothing is
            changed then.
    """
    if running := Services(root / RUN).known():
        raise StageError(f"{', '.join(running)} run in {root}; `zk0 stop` first")
    if not file.is_file():
        raise StageError(f"{file} is missing; it must be a file that `zk0 backup` wrote")
    with new_folder(root / "restored") as temporary:  # 0700
        keep_from_git(temporary)
        staged = temporary / "content"
        staged.mkdir()
        _unpack(file, staged)
        _check(file, staged)
        moves = _moves(staged)
        if there := [str(path) for path in moves if (root / path).exists()]:
            raise StageError(
                f"{', '.join(there)} in {root} would be overwritten; move them away, or restore into another folder"
            )
        for path in moves:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).replace(root / path)
    if (root / SECURITY).exists():
        for folder in [root / SECURITY, *(path for path in (root / SECURITY).rglob("*") if path.is_dir())]:
            folder.chmod(0o700)
            keep_from_git(folder)
    return [str(path) for path in moves]


def _keep_from_git(out: Path, temporary: Path, fresh: bool) -> None:
    """See to it that a repository takes neither the backup nor, after a kill, what was to become one.

    Raises:
        StageError: It would take the backup, and its folder has other content.
    """
    keep_from_git(temporary)
    if git_takes(out):
        if not fresh:
            raise StageError(
                f"`git add` would take {out}, and it holds the federation's keys; name a file outside the repository, "
                f"or in a folder of its own, as backups/{out.name}, which is kept from git"
            )
        keep_from_git(out.parent)


def _stage(root: Path, staged: Path) -> None:
    for name in _FOLDERS:
        if (root / name).is_dir():
            shutil.copytree(root / name, staged / name, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for name in _FILES:
        if (root / name).is_file():
            shutil.copy2(root / name, staged / name)
    if (root / DATABASE).is_file():
        _copy_database(root / DATABASE, staged / DATABASE)


def _copy_database(source: Path, target: Path) -> None:
    """As of one moment, by SQLite itself: others may write to it meanwhile."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as there,
        contextlib.closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)


def _contents(staged: Path) -> dict[str, int | str | dict[str, str]]:
    return {
        "format": _FORMAT,
        "zk0": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {str(path.relative_to(staged)): digest_file(path) for path in _files(staged)},
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _unpack(file: Path, staged: Path) -> None:
    try:
        with tarfile.open(file) as archive:
            archive.extractall(staged, _that_fit(archive, staged, file), filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise StageError(f"{file} is no backup that could be read ({error}); use another copy") from error


def _that_fit(archive: tarfile.TarFile, staged: Path, file: Path) -> Iterator[tarfile.TarInfo]:
    """What is in an archive, as long as there is room for it: a small file can stand for a large one."""
    room = shutil.disk_usage(staged).free
    for member in archive:
        room -= member.size
        if room < 0:
            raise StageError(f"{file} holds more than there is room for in {staged.parent}; make room there")
        yield member


def _check(file: Path, staged: Path) -> None:
    try:
        contents = read_mapping(staged / _CONTENTS, "format", "files")
    except (FileNotFoundError, BadFileError) as error:
        raise StageError(f"{file} is no backup of `zk0 backup`: it holds no readable {_CONTENTS}") from error
    if contents["format"] not in (1, _FORMAT):
        raise StageError(f"{file} is of backup format {contents['format']!r:.40}, and this zk0 reads 1 and {_FORMAT}")
    if not isinstance(contents["files"], dict):
        raise StageError(f"{file} is no backup of `zk0 backup`: 'files' in its {_CONTENTS} is no mapping")
    digest = digest_file if contents["format"] == _FORMAT else _digest_of_format_1
    (staged / _CONTENTS).unlink()
    found = {str(path.relative_to(staged)): digest(path) for path in _files(staged)}
    if changed := sorted(name for name in found | contents["files"] if found.get(name) != contents["files"].get(name)):
        raise StageError(f"{file} is damaged: {', '.join(changed[:5])} are not what was backed up; use another copy")


def _digest_of_format_1(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def _moves(staged: Path) -> list[Path]:
    """What is moved as a whole: the folders, and every other file."""
    whole = [name for name in _FOLDERS if (staged / name).exists()]
    single = [name for name in (*_FILES, DATABASE) if (staged / name).exists()]
    return [*whole, *single]
