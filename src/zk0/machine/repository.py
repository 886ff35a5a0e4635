"""What git and DVC know of a folder: which revision of the code it holds, and where its data is kept besides."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zk0.checks import Check

ADD_REMOTE = "dvc remote add --local --default backup FOLDER_OR_URL"
_NOT_CODE = (":(exclude)dvc.lock", ":(exclude).dvc")


@dataclass(frozen=True)
class Revision:
    """A commit of git.

    Attributes:
        commit: Its hash; None outside a repository, before its first commit, or without git.
        dirty: Whether code or params are not committed, new files included. DVC's own files are neither:
            ``dvc.lock`` is written by every run, and ``.dvc`` says where data is kept.
    """

    commit: str | None
    dirty: bool

    @property
    def told(self) -> str | None:
        """For people; None without a commit."""
        return self.commit and self.commit + ", with uncommitted changes" * self.dirty


def _git(root: Path, *words: str) -> str | None:
    """What git says of a folder; None where it refuses, or is not installed."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def revision(root: Path) -> Revision:
    """The commit that a folder stands at, and whether it was changed since."""
    dirty = bool(_git(root, "status", "--porcelain", "--", ":/", *_NOT_CODE))
    return Revision(_git(root, "rev-parse", "HEAD"), dirty)


def has_git() -> bool:
    """Whether git is installed."""
    return shutil.which("git") is not None


def work_tree(folder: Path) -> Path | None:
    """The folder of the git repository that a folder is, or would be, in; None where it is in none."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    found = _git(there, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def first_commit(root: Path, files: Iterable[Path]) -> str:
    """Make a folder a git repository with one commit, of these files; what came of it, in words."""
    if not has_git():
        return "git is not installed, so runs are not kept as DVC experiments"
    someone = () if _git(root, "config", "user.email") else ("-c", "user.name=zk0", "-c", "user.email=zk0@localhost")
    commit = (*someone, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "zk0 init")
    steps = (("init", "--quiet"), ("add", "--", *map(str, files)), commit)
    done = all(_git(root, *words) is not None for words in steps)
    return "committed to git" if done else "git did not take them: commit them by hand"


def default_remote(root: Path) -> str | None:
    """Where `dvc push` sends data; None where it cannot, or only into the project's own folder."""
    if not (root / ".dvc").is_dir():
        return None
    from dvc.config import Config  # noqa: PLC0415 - slow to import

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    url = str(config["remote"].get(name, {}).get("url", "")) if name else ""
    inside = "://" not in url and Path(url).resolve().is_relative_to(root.resolve())
    return None if not url or inside else url


def check_remote(root: Path) -> list[Check]:
    """A note where there is a pipeline, and its data and models would be lost with this folder."""
    if not (root / ".dvc").is_dir():
        return []
    url = default_remote(root)
    return [
        Check(
            "backup of data",
            url is not None,
            url or "no DVC remote outside this folder",
            "a DVC remote, where `dvc push` sends data and models",
            f"`{ADD_REMOTE}`, then `dvc push`",
            "warning",
        )
    ]
