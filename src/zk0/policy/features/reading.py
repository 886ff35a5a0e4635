"""Read files of features: mapped into memory, checked when they are opened and when a frame is first read."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np

from zk0.policy.features.store import ITEMS, MAGIC, FeatureCacheError, Layout, checksum

_MOST_OPEN = 256


class FeatureFile:
    """An existing file, open for reading.

    Raises:
        FeatureCacheError: It is cut off, or is not the file that its name promises.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        filled = path.stat().st_size > 0  # an empty file cannot be mapped
        self._map = np.asarray(np.memmap(path, dtype=np.uint8, mode="r")) if filled else np.zeros(0, np.uint8)
        self.layout = self._read_layout()
        if len(self._map) != self.layout.file_bytes:
            raise self.spoilt(
                f"has {len(self._map)} bytes where {self.layout.file_bytes} were expected: it was cut off"
            )
        start, frames = len(self.layout.header), self.layout.frames
        self.inode = path.stat().st_ino
        self._checks = self._map[start : start + 8 * frames].view("<u8")
        self._bytes = self._map[self.layout.data_at :].reshape(frames, self.layout.frame_bytes)
        self._items = self._bytes.view(ITEMS[self.layout.dtype]).reshape(frames, *self.layout.shape)
        self._verified = np.zeros(frames, dtype=bool)

    def spoilt(self, what: str) -> FeatureCacheError:
        """The error that says what is wrong with this file."""
        return FeatureCacheError(f"{self.path} {what}. Delete it, or run `zk0 features clean`; it is computed again")

    def _read_layout(self) -> Layout:
        start = self._map[: len(MAGIC) + 4].tobytes()
        if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
            raise self.spoilt("is no file of features")
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        try:
            content = json.loads(self._map[len(start) : len(start) + length].tobytes())
            return Layout(**{**content, "shape": tuple(content["shape"])})
        except (ValueError, TypeError, KeyError) as error:
            raise self.spoilt(f"has a header that cannot be read ({error})") from error

    def missing(self) -> np.ndarray:
        """(frames,) whether each frame is still to be computed."""
        return np.asarray(self._checks == 0)

    def frame(self, index: int) -> np.ndarray | None:
        """One frame's features, not copied, bf16 as int16; None if they are missing.

        The checksum is verified when a frame is first read in a process.

        Raises:
            FeatureCacheError: The bytes are not those that were written.
        """
        if not self._verified[index]:
            if not self._checks[index]:
                return None
            if checksum(self._bytes[index]) != self._checks[index]:
                raise self.spoilt(f"holds frame {index} with bytes that are not those written")
            self._verified[index] = True
        found: np.ndarray = self._items[index]
        return found


class Shelf:
    """Open files, the least recently used of them closed when there are many."""

    def __init__(self, most: int = _MOST_OPEN) -> None:
        self._most = most
        self._files: OrderedDict[Path, FeatureFile] = OrderedDict()

    def get(self, path: Path, fresh: bool = False) -> FeatureFile | None:
        """The file, or None if there is none.

        Args:
            path: Which file.
            fresh: Look whether it was deleted or replaced since it was opened.
        """
        if fresh and path in self._files and _inode(path) != self._files[path].inode:
            del self._files[path]
        if path not in self._files:
            try:
                self._files[path] = FeatureFile(path)
            except FileNotFoundError:
                return None
            while len(self._files) > self._most:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path]


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


shelf = Shelf()
