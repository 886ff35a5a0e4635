"""Which revision of the code a folder holds."""

import subprocess
from pathlib import Path

from zk0.machine.repository import revision


def _git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def test_folder_outside_a_repository_has_none(tmp_path: Path) -> None:
    found = revision(tmp_path)
    assert (found.commit, found.dirty, found.told) == (None, False, None)


def test_commit_and_what_is_not_in_it(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    assert revision(tmp_path).told is None  # no commit yet
    _git(tmp_path, "add", "a")
    _git(tmp_path, "commit", "-qm", "first")
    clean = revision(tmp_path)
    assert clean.commit is not None and len(clean.commit) == 40
    assert (clean.dirty, clean.told) == (False, clean.commit)
    (tmp_path / "b").write_text("b")
    assert revision(tmp_path).told == f"{clean.commit}, with uncommitted changes"


def test_what_dvc_writes_is_no_change_of_the_code(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.lock", ".dvc/config"):
        (project / name).write_text("a")
    _git(tmp_path, "add", "project/params.yaml", "project/.dvc/config")
    _git(tmp_path, "commit", "-qm", "first")
    (project / ".dvc/config").write_text("b")
    assert not revision(project).dirty  # a new dvc.lock, and another remote

    _git(tmp_path, "add", "-A")
    _git(tmp_path, "commit", "-qm", "second")
    (project / "dvc.lock").write_text("b")
    assert not revision(project).dirty

    (tmp_path / "beside.py").write_text("a")
    assert revision(project).dirty
