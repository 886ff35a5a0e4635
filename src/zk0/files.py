"""Writing files so that a reader, or a kill, never meets half of one; reading those that others may have written.

What is being written has a name of its own, and what a killed process left under such a name is removed. Whoever
writes holds a lock on it, which the kernel gives back however the process ends. So what nobody has locked is a
leftover, and the next who writes into that folder removes it. On a file system without such locks nothing is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

_MOST_BYTES = 1 << 30
_DEEPEST = 100
_NO_FILE = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}

NEW, OLD = ".zk0-new", ".zk0-old"  # the ends of such names; .gitignore and .dvcignore know them


class BadFileError(ValueError):
    """A file holds something else than it must; the message names it, and says what is wrong."""


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` that takes its place when the block ends well."""
    if folder.is_symlink():
        folder = folder.resolve()  # what it stands for is replaced, and it goes on standing for it
    with new_folder(folder) as temporary:
        temporary.chmod(0o755)
        yield temporary
        _take_place(temporary, folder)


def _take_place(temporary: Path, folder: Path) -> None:
    """Moved aside before it is removed, which takes a while in which neither would be there."""
    if not folder.exists():
        temporary.rename(folder)
        return
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is to be; move it away", str(folder))
    aside = temporary.with_suffix(OLD)
    folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    remove(aside)


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file by way of a temporary one in the same folder; ``mode`` is who may read and write it."""
    with new_file(path) as (handle, temporary):
        with os.fdopen(handle, "wb", closefd=False) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(handle)
        temporary.chmod(mode)
        temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with a newline at its end."""
    write_bytes(path, (text.rstrip("\n") + "\n").encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, since no other reader knows it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False))


def read_text(path: Path, most: int = _MOST_BYTES) -> str:
    """Read a text file that may have been put there by anybody.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It is no file, larger, not UTF-8, or may not be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe that nobody writes to would be waited for for ever
            kind = _NO_FILE.get(stat.S_IFMT(found.st_mode), "a device")
            raise BadFileError(f"{path} is {kind}, and a file was expected; move it away")
        if found.st_size > most:
            raise BadFileError(f"{path} has {found.st_size} bytes, and at most {most} were expected")
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise BadFileError(f"{path} is no text in UTF-8: byte {error.start} is 0x{wrong:02x}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadFileError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path, most: int = _MOST_BYTES, deepest: int = _DEEPEST) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        most: Bytes that it may have.
        deepest: How deep lists and mappings may be in each other.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It cannot be read, is not JSON, nested too deep, or has a key twice; names the file.
    """
    return parse_json(read_text(path, most), str(path), deepest)


def read_mapping(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file that holds a mapping with these keys; see :func:`read_json`."""
    value = _mapping(read_json(path), str(path))
    if missing := [key for key in keys if key not in value]:
        raise BadFileError(f"{path} lacks '{missing[0]}'")
    return value


def read_records(
    path: Path, *, broken: Literal["none", "last", "any"] = "any", most: int = _MOST_BYTES
) -> dict[int, dict[str, Any]]:
    """Read the mappings of a file that has one as JSON in each line, by the line's number from 1 on.

    Args:
        path: The file.
        broken: Which lines need not be one, and are left out. Of a file that is appended to, the last: its writer may
            be in the middle of it, or was killed there. Where others may have been appended since, any.
        most: Bytes that it may have.

    Raises:
        FileNotFoundError: It is not there.
        BadFileError: It cannot be read, or a line that must be is no mapping; names the file and the line.
    """
    found = {}
    lines = read_text(path, most).rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        origin = f"{path}, line {number}"
        try:
            if line.strip():
                found[number] = _mapping(parse_json(line, origin), origin)
        except BadFileError:
            if broken == "none" or (broken == "last" and number < len(lines)):
                raise
    return found


def _mapping(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFileError(f"{origin} must hold a mapping, but holds {type(value).__name__}")
    return value


def parse_json(text: str, origin: str, deepest: int = _DEEPEST) -> Any:
    """Read JSON; see :func:`read_json`."""
    try:
        value = json.loads(text, object_pairs_hook=each_key_once)
    except RecursionError as error:
        raise BadFileError(_too_deep(origin, deepest)) from error
    except ValueError as error:
        raise BadFileError(f"{origin} is not valid JSON: {error}") from error
    check_depth(value, origin, deepest)
    return value


def check_depth(value: Any, origin: str, deepest: int = _DEEPEST) -> None:
    """Refuse lists and mappings in each other so deep that working on them could end the process.

    Raises:
        BadFileError: They are; names ``origin``.
    """
    level = [value]
    for _ in range(deepest):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for some in inner for one in some if isinstance(one, dict | list)]
        if not level:
            return
    raise BadFileError(_too_deep(origin, deepest))


def _too_deep(origin: str, deepest: int) -> str:
    return f"{origin} is nested more than {deepest} deep"


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys are all different: of two readers, one might take the first and one the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


@contextmanager
def removed_unless_begun(folder: Path, first: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within the block, whatever ends work before it has a state leaves nothing of it behind.

    Args:
        folder: Of the work; its ``state`` is there once a round was kept. An empty folder around it goes, too.
        first: Called before anything is removed.
    """
    try:
        yield
    except BaseException:
        if not (folder / "state").exists():
            first()
            shutil.rmtree(folder, ignore_errors=True)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that only its owner may enter, beside the target; gone when the block ends, unless it was renamed."""
    with _locked(target, lambda: tempfile.mkdtemp(prefix=f".{target.name}.", suffix=NEW, dir=target.parent)) as made:
        yield made[1]


@contextmanager
def new_file(target: Path) -> Iterator[tuple[int, Path]]:
    """A file that only its owner may read, open for writing, beside the target; gone as :func:`new_folder` is."""

    def make() -> str:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=NEW, dir=target.parent)
        os.close(handle)
        return name

    with _locked(target, make, os.O_WRONLY) as made:
        yield made


def remove(path: Path) -> None:
    """Remove a file or a folder as far as it can be; it may be gone already."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that have ended were writing into a folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith((NEW, OLD))]
    for name in names:
        with contextlib.suppress(OSError):
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder / name)
            finally:
                os.close(handle)


@contextmanager
def _locked(target: Path, make: Callable[[], str], flags: int = os.O_RDONLY) -> Iterator[tuple[int, Path]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    while True:
        path = Path(make())
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, flags)
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists():
                break  # and not taken for a leftover before it was locked
            os.close(handle)
    try:
        yield handle, path
    finally:
        remove(path)
        os.close(handle)
