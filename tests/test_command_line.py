"""What every command has in common: where errors go, exit codes, version and help."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console
from tests_support import REPO
from typer.main import get_command

from zk0 import __version__, runtime_env
from zk0.__main__ import main
from zk0.cli.app import app
from zk0.console import folded_table


def typed(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zk0", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)


def test_an_error_is_one_line_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()

    done = typed(tmp_path, "profile", "use", "[odd]", TERM="dumb")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: there are no profiles in ")


@pytest.mark.parametrize(
    ("module", "words"), [("flwr", ["status"]), ("numpy", ["prepare"]), ("cryptography", ["security", "show"])]
)
def test_a_package_that_is_not_installed_is_named_with_what_brings_it(
    tmp_path: Path, module: str, words: list[str]
) -> None:
    shutil.copy(REPO / "params.yaml", tmp_path)
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = {words}; from zk0.cli.app import main; main()"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    what = f"this needs the package {module}, which zk0[site] brings"
    assert done.stderr == f"error: {what}; `make install` installs it\n"


def test_where_nothing_would_run_that_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(SystemExit, match="zk0 runs on Linux"):
        main()


def test_a_table_loses_nothing_where_it_is_narrow() -> None:
    name = "federated:with-a-long-name"

    table = folded_table(("arm", "success"), [(name, "62% (54 to 70)")], box=None)
    Console(width=24, file=(terminal := io.StringIO())).print(table)

    lines = terminal.getvalue().splitlines()
    assert "".join(line[:12].strip() for line in lines[1:]) == name


def test_what_is_typed_wrongly_has_a_code_of_its_own(tmp_path: Path) -> None:
    done = typed(tmp_path, "federat")

    assert (done.returncode, done.stdout) == (2, "") and "federate" in done.stderr


def test_version_and_help_at_every_level(tmp_path: Path) -> None:
    assert typed(tmp_path, "--version").stdout == f"zk0 {__version__}\n"
    short, long = typed(tmp_path, "study", "-h"), typed(tmp_path, "study", "--help")
    assert short.returncode == 0 and "comparison" in short.stdout and short.stdout == long.stdout


def test_every_option_and_argument_is_explained() -> None:
    found = list(_unexplained(get_command(app), "zk0"))

    assert found == []


def _unexplained(command: Any, path: str) -> Iterator[str]:
    for parameter in command.params:
        record = parameter.get_help_record(click.Context(command))
        if not command.hidden and not (record and record[1].removesuffix("[required]").strip()):
            yield f"{path} {parameter.name}"
    for name, inner in getattr(command, "commands", {}).items():
        yield from _unexplained(inner, f"{path} {name}")


def test_an_empty_gl_backend_is_none(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")

    runtime_env.switch_off()

    assert "MUJOCO_GL" not in os.environ
