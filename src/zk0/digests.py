"""Digests that strangers may rely on, and others that find accidents; what counts in the keys of runs and pieces.

BLAKE2b (RFC 7693) stands where somebody relies on a digest: sources, checkpoints, episodes, manifests, runs and
pieces of studies. xxh3 stays where only accidents matter: on the wire, for states, memos and caches.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Buffer, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Self

import xxhash
from pydantic import BaseModel

from zk0.files import read_json, write_json

# Counts in the key of every run and of every piece of a study. Raise it when the same params make another
# model or another figure: an algorithm or a default was changed, or what digests are made of. Then every run
# and piece is made anew. A new param needs no other number as long as its default leaves all as it was.
# 1: zk0 0.1.0. 2: recordings without x264's macroblock tree, held-out episodes by their own digests, BLAKE2b.
RESULTS_VERSION = 2

_SIDE_BY_SIDE_BYTES = 1 << 25  # below, handing parts to another thread costs more than it saves
# A file written this recently may change again without its time stamp moving, so it is not cached.
_SETTLED_NS = 2_000_000_000


def new_digest(content: Buffer = b"", size: int = 32) -> hashlib.blake2b:
    """BLAKE2b of ``size`` bytes, to be fed."""
    return hashlib.blake2b(content, digest_size=size)


def digest_value(value: Any, size: int = 32) -> str:
    """BLAKE2b of a JSON value, in hex; independent of the order of its keys."""
    return new_digest(json.dumps(value, sort_keys=True).encode(), size).hexdigest()


def quick_digest(value: Any) -> str:
    """xxh3-128 of a JSON value, in hex; independent of the order of its keys. Finds accidents, not forgeries."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def counted(section: BaseModel, leave_out: Collection[str] = ()) -> dict[str, object]:
    """What a section of params adds to a key: what differs from the defaults in the code.

    So a param that is added later leaves the keys of all runs that do not use it. For that its default must be its
    off-value, by which everything is as it was before; where it cannot be, :data:`RESULTS_VERSION` rises.

    Args:
        section: The params.
        leave_out: Fields that decide nothing.

    Example:
        >>> from zk0.params import TrainingParams
        >>> counted(TrainingParams(batch=32, grad_clip=10.0))
        {'batch': 32}
    """
    return section.model_dump(mode="json", exclude=set(leave_out), exclude_defaults=True)


def key_of(content: Mapping[str, object]) -> str:
    """16 hex digits of all that decides a run or a piece; parts that are empty count for nothing."""
    full = {name: value for name, value in content.items() if value != {}}
    return digest_value({"results": RESULTS_VERSION, **full}, size=8)


def digest_file(path: Path) -> str:
    """BLAKE2b of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, new_digest).hexdigest()


def digest_folder(folder: Path) -> str:
    """BLAKE2b over the names and contents of all files below a folder, in a fixed order."""
    digest = new_digest()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return digest.hexdigest()


def digest_parts(parts: Mapping[str, Buffer]) -> str:
    """xxh3-128 over labelled buffers, in hex; independent of the mapping's order. Finds accidents, not forgeries.

    Each is hashed by itself, large ones side by side: a core alone is slower than memory.
    """
    names = sorted(parts)
    large = sum(memoryview(parts[name]).nbytes for name in names) > _SIDE_BY_SIDE_BYTES
    run = _hashers().map if large else map
    digest = xxhash.xxh3_128()
    for name, one in zip(names, run(xxhash.xxh3_128_digest, [parts[name] for name in names]), strict=True):
        digest.update(f"{name}\0".encode())
        digest.update(one)
    return digest.hexdigest()


@cache
def _hashers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="zk0-digest")


class FileCache:
    """What was made of files, by their size and time stamp, so that an unchanged one costs a stat.

    Args:
        path: Where it is kept, as JSON.
        by: What made it; what was made by anything else counts for nothing.
    """

    def __init__(self, path: Path, by: str) -> None:
        self._path, self._by = path, by
        self._changed = False
        try:
            kept = read_json(path)
            self._known: dict[str, list[Any]] = dict(kept["files"]) if kept["by"] == by else {}
        except (OSError, ValueError, TypeError, LookupError):
            self._known = {}  # only a cache: missing or spoilt, it is built anew

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            write_json(self._path, {"by": self._by, "files": self._known})

    def of(self, path: Path, make: Callable[[Path], Any]) -> Any:
        """What ``make`` gives for a file, plain JSON, or gave for it as it is."""
        stat, key = path.stat(), str(path.absolute())
        known = self._known.get(key)
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known[2]
        made = make(path)
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._known[key] = [stat.st_size, stat.st_mtime_ns, made]
            self._changed = True
        return made


class DigestCache(FileCache):
    """Digests of files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, by=new_digest().name)

    def digest(self, folder: Path, files: list[Path]) -> str:
        """As :func:`digest_folder`, over ``files`` below ``folder``."""
        whole = new_digest()
        for path in files:
            whole.update(f"{path.relative_to(folder).as_posix()}\0{self.of(path, digest_file)}\n".encode())
        self._forget_vanished(folder, {str(path.absolute()) for path in files})
        return whole.hexdigest()

    def _forget_vanished(self, folder: Path, present: set[str]) -> None:
        inside = f"{folder.absolute()}{os.sep}"
        vanished = [key for key in self._known if key.startswith(inside) and key not in present]
        for key in vanished:
            del self._known[key]
        self._changed |= bool(vanished)
