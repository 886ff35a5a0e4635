"""Whole projects in temporary folders: the real code, two sites, two rounds, a few steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A project folder and how to run commands in it."""

    root: Path
    env: dict[str, str]

    def run(self, *words: str, timeout: float = 400, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command that must succeed."""
        done = self.attempt(*words, timeout=timeout, **env)
        assert done.returncode == 0, f"{' '.join(words)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def attempt(self, *words: str, timeout: float = 400, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever becomes of it."""
        return subprocess.run(
            words, cwd=self.root, env=self.env | env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def change_params(self, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
        """Edit params.yaml."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False))


def small(params: dict) -> None:  # type: ignore[type-arg]
    """Two sites, two rounds, a few steps, one thread."""
    params["threads"] = 1
    params["data"]["sites"] = {"red": "sim:push-red-cube-left", "disc": "sim:press-magenta-disc"}
    params["data"]["unseen"] = {"purple": "sim:push-purple-cylinder-left"}
    params["data"]["episodes"] = 3
    params["training"] |= {"local_steps": 3, "batch": 4, "warmup_steps": 1}
    params["federation"]["rounds"] = 2
    params["evaluation"] |= {"rollouts": 2, "max_steps": 8, "videos": 1, "loss_draws": 1}
    params["benchmark"] |= {"steps": 2, "chunks": 2}


def make_project(root: Path, home: Path) -> Project:
    """Lay out a project: copies of what a clone holds, flows and tasks by link so coverage sees them."""
    root.mkdir(parents=True)
    for name in (
        "params.yaml",
        "dvc.yaml",
        "prefect.yaml",
        "prefect.toml",
        ".dvcignore",
        ".gitignore",
        "constraints.md",
    ):
        shutil.copy(REPO / name, root / name)
    for name in ("src", "models", "requirements", "profiles", ".dvc"):
        ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(REPO / name, root / name, ignore=ignored)
    for name in ("data", "results"):
        (root / name).mkdir()
        shutil.copy(REPO / name / ".gitignore", root / name / ".gitignore")
    shutil.copy(REPO / "pyproject.toml", root / "pyproject.toml")
    for name in ("flows", "tasks"):
        (root / name).symlink_to(REPO / name)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
    }
    env.pop("PREFECT_API_URL", None)
    project = Project(root, env)
    project.change_params(small)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "small project")
    return project
