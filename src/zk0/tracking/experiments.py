"""A finished run as a DVC experiment: a commit beside the branches, with its code, its params and its dvc.lock.

`dvc exp run` makes one of every run. Of what `dvc repro` or a flow runs, the last stage does, so that the name is
known when the run goes into MLflow. `dvc exp save` cannot be called from there: the pipeline's own `dvc repro` holds
its locks. The commit is made beside index and working tree, and is listed, pushed and applied as any other.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, loads_yaml

from zk0.errors import StageError
from zk0.params import PARAMS_FILE

LOCK = "dvc.lock"
_STAGE = "track"  # that which calls this, and so is not over
_MOST_NAMED = 5


@dataclass(frozen=True)
class Kept:
    """Where a run is kept.

    Attributes:
        name: Of the experiment; None where there is none.
        why: There is none.
        without: New files that git does not know, and so are not in it.
    """

    name: str | None
    why: str = ""
    without: tuple[str, ...] = ()


def keep(root: Path, name: str) -> Kept:
    """Keep the run that a pipeline has just made, unless `dvc exp run` does.

    Args:
        root: The project's folder.
        name: For the experiment; one of that name is replaced.
    """
    if not os.environ.get("DVC_STAGE"):
        return Kept(None, "`zk0 track` was not run by `dvc repro`")
    try:
        repository = _Repository(root)
        new = repository("ls-files", "--others", "--exclude-standard", "--", ":/", f":(exclude){LOCK}").splitlines()
        without = tuple(new[:_MOST_NAMED])
        if ours := os.environ.get("DVC_EXP_NAME"):
            return Kept(ours, without=without)
        if changed := _changed_since(root):
            return Kept(None, f"params have changed since it ran: {', '.join(changed)}")
        repository.save(name)
    except StageError as error:
        return Kept(None, str(error))
    return Kept(name, without=without)


def here(root: Path, name: str) -> bool:
    """Whether this clone has an experiment."""
    try:
        return bool(_Repository(root).named(name))
    except StageError:
        return False


def git_remote(root: Path) -> str | None:
    """git's remote, origin if there are several; None while there is none."""
    try:
        names = _Repository(root)("remote").splitlines()
    except StageError:
        return None
    return "origin" if "origin" in names else next(iter(names), None)


def _lock(root: Path) -> dict[str, Any]:
    try:
        return dict(loads_yaml((root / LOCK).read_text()))
    except FileNotFoundError as error:
        raise StageError(f"there is no {LOCK}") from error


def _changed_since(root: Path) -> list[str]:
    """Params that dvc.lock names with other values than params.yaml."""
    now = loads_yaml((root / PARAMS_FILE).read_text())
    stages = [stage for name, stage in _lock(root)["stages"].items() if name != _STAGE]
    locked = [item for stage in stages for item in stage.get("params", {}).get(str(PARAMS_FILE), {}).items()]
    return sorted({key for key, value in locked if _at(now, key) != value})


def _at(params: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        params = params.get(key) if isinstance(params, dict) else None
    return params


class _Repository:
    """git's plumbing in a project's folder.

    Raises:
        StageError: There is no repository, no commit or no git.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._environment = dict(os.environ)
        try:
            self._head = self("rev-parse", "--verify", "HEAD")
        except StageError as error:
            raise StageError("there is no commit of git here to keep it beside") from error

    def __call__(self, *words: str, given: str | None = None) -> str:
        try:
            done = subprocess.run(
                ["git", *words],
                cwd=self._root,
                env=self._environment,
                input=given,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise StageError("git is not installed") from error
        if done.returncode:
            raise StageError(f"`git {words[0]}` said: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}")
        return done.stdout.strip()

    def named(self, name: str) -> list[str]:
        """References of experiments of a name, whatever commit they start from."""
        return self("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").splitlines()

    def save(self, name: str) -> None:
        """Commit what git knows of the folder, as it is now, and dvc.lock without the stage that is not over."""
        lock = _lock(self._root)
        lock["stages"].pop(_STAGE, None)
        with tempfile.TemporaryDirectory() as folder:
            self._environment["GIT_INDEX_FILE"] = f"{folder}/index"
            self("read-tree", self._head)
            self("add", "--update", "--", ":/")
            self("add", "--force", "--", str(PARAMS_FILE))
            blob = self("hash-object", "-w", "--stdin", given=dumps_yaml(lock))
            self("update-index", "--add", "--cacheinfo", f"100644,{blob},{self('rev-parse', '--show-prefix')}{LOCK}")
            tree = self("write-tree")
            del self._environment["GIT_INDEX_FILE"]
        who = [] if self._knows_who() else ["-c", "user.name=zk0", "-c", "user.email=zk0@localhost"]
        commit = self(*who, "commit-tree", tree, "-p", self._head, "-m", f"dvc: commit experiment {name}")
        for earlier in self.named(name):
            self("update-ref", "-d", earlier)
        self("update-ref", f"refs/exps/{self._head[:2]}/{self._head[2:]}/{name}", commit)

    def _knows_who(self) -> bool:
        try:
            return bool(self("var", "GIT_COMMITTER_IDENT"))
        except StageError:
            return False
