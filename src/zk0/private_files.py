"""Files that only their owner may read: written so, refused when they are not, and kept from git."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from zk0.errors import StageError
from zk0.files import write_bytes

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter, or take one that is so. No repository takes what is in it.

    Raises:
        StageError: It is there and open to others.
    """
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
    if not folder.is_dir():
        raise StageError(f"{folder} must be a folder, and is a file; move it away")
    if stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
        raise StageError(f"{folder} holds private keys, but others on this machine may enter it; `chmod 700 {folder}`")
    keep_from_git(folder)
    return folder


def keep_from_git(folder: Path) -> None:
    """Give a folder a ``.gitignore`` of its own, by which ``git add`` passes it over, whatever repository it is in."""
    file = folder / ".gitignore"
    if not file.exists() and os.access(folder, os.W_OK):
        write_bytes(file, b"*\n", mode=0o600)  # as whatever else is in it


def git_takes(path: Path) -> bool:
    """Whether ``git add`` would take a file that is to be written here, as one in a repository that is not ignored."""
    command = ["git", "-C", str(path.parent), "check-ignore", "--quiet", "--", path.name]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 1  # 128: no repository
    except OSError:  # no git
        return False


def write_private(path: Path, content: bytes, advice: str) -> None:
    """Write a secret atomically, readable by its owner alone.

    Args:
        path: Where; its folder must be private.
        content: The secret.
        advice: What a person can do where the file is there already.

    Raises:
        StageError: There is a file already: a key that is overwritten is lost for ever.
    """
    if path.exists():
        raise StageError(f"{path} is there already, and nothing overwrites a key; {advice}")
    write_bytes(path, content, mode=0o600)


def read_private(path: Path, advice: str) -> bytes:
    """Read a secret, if nobody else could have.

    Args:
        path: The file.
        advice: What a person can do where it is missing.

    Raises:
        StageError: It is missing, or others may read it.
    """
    if not path.is_file():
        raise StageError(f"{path} is missing; {advice}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        raise StageError(
            f"{path} is a secret, but its permissions are {mode:04o}, so others on this machine may read it; "
            f"`chmod 600 {path}`, and make a new one if somebody may have read it"
        )
    return path.read_bytes()
