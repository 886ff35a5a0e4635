"""What is being written has a name of its own, and what a killed process left under such a name is removed.

Whoever writes holds a lock on it, which the kernel gives back however the process ends. So what nobody has locked is a
leftover, and the next who writes into that folder removes it. On a file system without such locks nothing is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NEW, OLD = ".zk0-new", ".zk0-old"  # the ends of such names; .gitignore and .dvcignore know them


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
