"""Files of features: a header, a checksum for every frame, and the frames.

A file is made with its full size reserved, so a full disk shows before anything is computed, and
appears under its name at once. A frame counts as there when its checksum is; that is written after
the frame, so a kill at any moment leaves only frames that count as missing.

Layout: 8 bytes magic, 4 bytes length of the JSON header, the header; from the next multiple of
4096 on, one xxh3-64 for every frame (0 = missing); from the next multiple of 4096 on, the frames.
It is read by mapping it into memory, and checked when it is opened and when a frame is first read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from zk0.errors import StageError
from zk0.files import new_file

MAGIC = b"zk0feat1"
SUFFIX = ".features"
_PAGE = 4096
_MOST_OPEN = 256
ITEMS: dict[str, np.dtype[Any]] = {"bf16": np.dtype(np.int16), "fp32": np.dtype(np.float32)}


class FeatureCacheError(StageError):
    """Cached features cannot be written, or are not what they must be; names the file and what to do."""


@dataclass(frozen=True)
class Layout:
    """What a file holds.

    Attributes:
        key: Digest of everything the features depend on.
        kind: ``tokens`` or ``prefix``.
        shape: Of one frame's features.
        dtype: ``bf16`` or ``fp32``.
        frames: Frames of the episode.
        block: Frames that were encoded together.
    """

    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    frames: int
    block: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame's features."""
        return int(np.prod(self.shape)) * ITEMS[self.dtype].itemsize

    @property
    def header(self) -> bytes:
        """The file's beginning, up to the checksums."""
        text = json.dumps(asdict(self)).encode()
        start = MAGIC + struct.pack("<I", len(text)) + text
        return start.ljust(_padded(len(start)), b"\0")

    @property
    def data_at(self) -> int:
        """Where the frames begin, in bytes."""
        return _padded(len(self.header) + 8 * self.frames)

    @property
    def file_bytes(self) -> int:
        """The whole file's size in bytes."""
        return self.data_at + self.frames * self.frame_bytes


def _padded(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def checksum(frame: np.ndarray) -> int:
    """xxh3-64 of a frame's bytes; never 0, which stands for missing."""
    return xxhash.xxh3_64_intdigest(frame.data) or 1


def create(path: Path, layout: Layout) -> bool:
    """Make a file in which all frames are missing; one that is there already stays, and False is returned.

    Raises:
        FeatureCacheError: The disk is full or refuses; nothing is left behind.
    """
    try:
        with new_file(path) as (handle, temporary):
            _reserve(handle, layout.file_bytes)
            os.pwrite(handle, layout.header, 0)
            temporary.chmod(0o644)
            return _publish(temporary, path)
    except OSError as error:
        raise _cannot_write(path, layout.file_bytes, error) from error


def _publish(temporary: Path, path: Path) -> bool:
    """Name a file; unlike a rename, a link never takes the place of what another process has begun."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        temporary.rename(path)  # a file system without links
    return True


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:  # macOS: what is written is reserved
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            os.pwrite(handle, zeros[: size - start], start)


def _cannot_write(path: Path, size: int, error: OSError) -> FeatureCacheError:
    return FeatureCacheError(
        f"{path}: {size / 1e6:.1f} MB of features cannot be written: {error.strerror}. Make room with `zk0 features "
        "clean`, name another folder in ZK0_FEATURES, or set features.cache to off"
    )


def write_frames(path: Path, layout: Layout, first: int, frames: np.ndarray) -> None:
    """Write consecutive frames; those that are there already stay.

    Args:
        path: The file.
        layout: What it holds.
        first: Frame of the episode.
        frames: (B, frame_bytes) uint8.

    Raises:
        FeatureCacheError: The write failed; the frames count as missing.
    """
    try:
        handle = os.open(path, os.O_RDWR)
        try:
            # Two processes may fill one file: the first one's frames stay, so that data and checksum are of one mind.
            fcntl.flock(handle, fcntl.LOCK_EX)
            checks_at = len(layout.header) + 8 * first
            there = np.frombuffer(os.pread(handle, 8 * len(frames), checks_at), dtype="<u8")
            for index in np.flatnonzero(there == 0):
                _write(handle, frames[index].tobytes(), layout.data_at + (first + int(index)) * layout.frame_bytes)
            sums = [there[i] or checksum(frames[i]) for i in range(len(frames))]
            _write(handle, np.array(sums, dtype="<u8").tobytes(), checks_at)
        finally:
            os.close(handle)
    except OSError as error:
        raise _cannot_write(path, frames.nbytes, error) from error


def _write(handle: int, content: bytes, at: int) -> None:
    while content:
        done = os.pwrite(handle, content, at)
        content, at = content[done:], at + done


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
