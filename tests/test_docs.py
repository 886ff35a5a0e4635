"""Pages of docs: what they tell to type are commands with such arguments, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from click.exceptions import UsageError
from tests_support import REPO
from typer.core import TyperGroup

from zk0 import __version__
from zk0.cli.app import app

PAGES = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPO / "docs").glob("*.md")),
]
_STARTS = ("zk0 ", "prefect deployment run ")


def lines(page: Path) -> list[str]:
    """What a page tells a person to type, with continuations and without comments."""
    text = "".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith(_STARTS)]


def parse(line: str) -> None:
    """Read a line as when it is typed, and run nothing; what is no command is raised."""
    words = shlex.split(re.split(r"\s[;&|]+\s", line)[0], comments=True)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("zk0", words)
    while isinstance(command, TyperGroup) and (rest := [*context.protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in lines(page) if line.startswith("zk0 ")}))
def test_a_documented_line_is_a_command_with_such_arguments(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["zk0 nonesuch", "zk0 status --jsn", "zk0 backup", "zk0 site none", "zk0 down now"])
def test_what_is_no_command_would_be_found(line: str) -> None:
    with pytest.raises(UsageError):
        parse(line)


def test_documented_deployments_exist() -> None:
    content = yaml.safe_load((REPO / "prefect.yaml").read_text())
    known = {f"{Path(one['entrypoint'].partition(':')[0]).stem}/{one['name']}" for one in content["deployments"]}

    named = {
        shlex.split(line, comments=True)[3] for page in PAGES for line in lines(page) if line.startswith("prefect")
    }

    assert named and named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in found if not (page.parent / link).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\(([^):#]+\.md)", (REPO / "README.md").read_text()))

    assert {str(page.relative_to(REPO)) for page in PAGES[1:]} <= linked


def test_the_version_has_one_place() -> None:
    cited = yaml.safe_load((REPO / "CITATION.cff").read_text())["version"]
    newest = re.findall(r"^## (\d[\d.]*)", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)[0]

    assert cited == newest == __version__


def test_what_a_forge_runs_is_what_a_person_runs() -> None:
    (job,) = yaml.safe_load((REPO / ".github/workflows/tests.yml").read_text())["jobs"].values()
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (REPO / "Makefile").read_text()

    assert job["steps"][-1] == {"run": ".ci/run"} and (REPO / ".ci/run").stat().st_mode & 0o100
    for hook in hooks:
        words = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{words}" in makefile, hook["id"]


def test_every_remark_on_a_recording_is_explained() -> None:
    from zk0.data.quality.remarks import ADVICE

    rows = re.findall(r"^\| ([\w ]+?)(?: \(grave[^)]*\))? \|", (REPO / "docs/data.md").read_text(), re.MULTILINE)

    assert set(ADVICE) <= set(rows)
