"""Digests of files, kept by size and time stamp."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from zk0.files import digest_file, read_json, write_json
from zk0.keys import new_digest

# A file written this recently may change again without its time stamp moving, so it is not cached.
_SETTLED_NS = 2_000_000_000
_HEX = 2 * new_digest().digest_size  # one of another length was made by an earlier zk0


class DigestCache:
    """Digests of files by size and time stamp, so that an unchanged large folder costs a stat per file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            self._known: dict[str, list[Any]] = {
                key: known for key, known in dict(read_json(path)).items() if len(known[2]) == _HEX
            }
        except (OSError, ValueError, TypeError, LookupError):
            self._known = {}  # only a cache: missing or spoilt, it is built anew

    def __enter__(self) -> DigestCache:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            write_json(self._path, self._known)

    def digest(self, folder: Path, files: list[Path]) -> str:
        """As :func:`zk0.files.digest_folder`, over ``files`` below ``folder``."""
        whole = new_digest()
        for path in files:
            whole.update(f"{path.relative_to(folder).as_posix()}\0{self._file(path)}\n".encode())
        self._forget_vanished(folder, {str(path.absolute()) for path in files})
        return whole.hexdigest()

    def _file(self, path: Path) -> str:
        stat, key = path.stat(), str(path.absolute())
        known = self._known.get(key)
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        digest = digest_file(path)
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._known[key] = [stat.st_size, stat.st_mtime_ns, digest]
            self._changed = True
        return digest

    def _forget_vanished(self, folder: Path, present: set[str]) -> None:
        inside = f"{folder.absolute()}{os.sep}"
        vanished = [key for key in self._known if key.startswith(inside) and key not in present]
        for key in vanished:
            del self._known[key]
        self._changed |= bool(vanished)
