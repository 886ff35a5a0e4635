"""What git and DVC know of a folder: which revision of the code it holds, and where its data is kept besides."""

from __future__ import annotations

import subprocess
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


def revision(root: Path) -> Revision:
    """The commit that a folder stands at, and whether it was changed since."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return Revision(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ":/", *_NOT_CODE)))


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
