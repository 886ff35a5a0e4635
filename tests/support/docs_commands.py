"""What the pages of docs tell a person to type, and `zk0` run in this process as if they had."""

from __future__ import annotations

import re
import shlex

from tests_support import REPO
from typer.testing import CliRunner

from zk0.cli.app import app


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
