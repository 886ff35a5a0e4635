"""Which revision of the code a folder holds."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

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
