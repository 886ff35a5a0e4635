"""Writing files so that a reader, or a kill, never meets half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Buffer, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from zk0.keys import new_digest

_SIDE_BY_SIDE_BYTES = 1 << 20


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` that takes its place when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file by way of a temporary one in the same folder; ``mode`` is who may read and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with a newline at its end."""
    write_bytes(path, (text.rstrip("\n") + "\n").encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, since no other reader knows it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is not JSON; names the file.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def digest_file(path: Path) -> str:
    """BLAKE2b of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, new_digest).hexdigest()


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


def digest_folder(folder: Path) -> str:
    """BLAKE2b over the names and contents of all files below a folder, in a fixed order."""
    digest = new_digest()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return digest.hexdigest()
