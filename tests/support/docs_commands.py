"""What the pages of docs tell a person to type, and `zk0` run in this process as if they had."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer
from tests_support import REPO
from typer.core import TyperGroup
from typer.testing import CliRunner

from zk0.cli.app import app


def shown_commands(page: Path) -> list[str]:
    """Every line that a page tells a person to type, each on one line and without its comment."""
    text = "".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)).replace("\\\n", " ")
    lines = (" ".join(re.sub(r"(^|\s+)#\s.*", "", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


def path_of(line: str) -> str:
    """Read a `zk0` line as when it is typed, and run nothing: the command's name; what is no command is raised."""
    words = shlex.split(re.split(r"\s[;&|]+\s", line)[0], comments=True)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("zk0", words)
    while isinstance(command, TyperGroup) and (rest := [*context.protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context.command_path.removeprefix("zk0").strip()


def documented(page: str, start: str) -> str:
    """The page's one command line that starts so, with its continuations: what is tried is what is written there."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPO / "docs" / page).read_text(), re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    (line,) = {line for line in lines if line.startswith(start)}
    return str(line)


def typed(line: str) -> str:
    """Run a `zk0` line and give what it printed; what a person can mend is raised."""
    program, *words = shlex.split(line, comments=True)
    assert program == "zk0"
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output
