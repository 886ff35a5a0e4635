"""What every command has in common: where errors go, exit codes, version and help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zk0 import __version__, runtime_env


def typed(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zk0", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)


def test_an_error_is_one_line_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()

    done = typed(tmp_path, "profile", "use", "[odd]", TERM="dumb")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: there are no profiles in ")


def test_what_is_typed_wrongly_has_a_code_of_its_own(tmp_path: Path) -> None:
    done = typed(tmp_path, "federat")

    assert (done.returncode, done.stdout) == (2, "") and "federate" in done.stderr


def test_version_and_help_at_every_level(tmp_path: Path) -> None:
    assert typed(tmp_path, "--version").stdout == f"zk0 {__version__}\n"
    short, long = typed(tmp_path, "study", "-h"), typed(tmp_path, "study", "--help")
    assert short.returncode == 0 and "comparison" in short.stdout and short.stdout == long.stdout


def test_an_empty_gl_backend_is_none(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")

    runtime_env.switch_off()

    assert "MUJOCO_GL" not in os.environ
