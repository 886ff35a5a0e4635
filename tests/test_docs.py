"""Pages of docs: what they tell to type are commands with such arguments, and their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from click.exceptions import UsageError
from docs_commands import path_of, shown_commands
from tests_support import REPO

from zk0 import __version__

PAGES = [
    *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.md")),
    *sorted((REPO / "docs").glob("*.md")),
]
_STARTS = ("zk0 ", "prefect deployment run ")


def lines(page: Path) -> list[str]:
    """What of a page's commands can be read without being run."""
    return [line for line in shown_commands(page) if line.startswith(_STARTS)]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in lines(page) if line.startswith("zk0 ")}))
def test_a_documented_line_is_a_command_with_such_arguments(line: str) -> None:
    path_of(line)


@pytest.mark.parametrize("line", ["zk0 nonesuch", "zk0 status --jsn", "zk0 backup", "zk0 site none", "zk0 down now"])
def test_what_is_no_command_would_be_found(line: str) -> None:
    with pytest.raises(UsageError):
        path_of(line)


def test_documented_deployments_exist() -> None:
    content = yaml.safe_load((REPO / "prefect.yaml").read_text())
    known = {f"{Path(one['entrypoint'].partition(':')[0]).stem}/{one['name']}" for one in content["deployments"]}

    named = {
        shlex.split(line, comments=True)[3] for page in PAGES for line in lines(page) if line.startswith("prefect")
    }

    assert named and named <= known


@cache
def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as GitHub makes it of their words."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = found.count(name)
        found += [name, f"{name}-{again}"] if again else [name]
    return set(found)


def leads_nowhere(page: Path, text: str) -> list[str]:
    """The relative links of a page's text to files that are not there, or to headings that a page does not have."""
    wrong = []
    for path, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(f"{path}#{anchor}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert leads_nowhere(page, page.read_text()) == []


def test_links_of_the_notebook_lead_somewhere() -> None:
    notebook = REPO / "docs" / "demo.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])

    assert len(re.findall(r"\]\(", text)) > 3
    assert leads_nowhere(notebook, text) == []


@pytest.mark.parametrize("link", ["docs/none.md#", "docs/data.md#none", "#none"])
def test_a_link_that_leads_nowhere_would_be_found(link: str) -> None:
    text = f"[that](docs/data.md#rooms), [here](#try-it), [folder](docs) and [this]({link})"

    assert leads_nowhere(REPO / "README.md", text) == [link]


def test_every_page_is_reached_from_the_readme() -> None:
    assert {str(page.relative_to(REPO)) for page in PAGES[1:]} <= set(linked((REPO / "README.md").read_text()))


def linked(text: str) -> list[str]:
    """The pages that a text links to, in their order."""
    return re.findall(r"\(([^):#]+\.md)", text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docs as `make docs` builds them, where a link or an anchor that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run([sys.executable, *words], cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page_in_the_order_of_the_readme(site: Path) -> None:
    front = (site / "index.html").read_text()
    pages = [f"{page.rstrip('/')}.md" for page in re.findall(r'<a href="([^"#:.]+)" class="md-nav__link', front)]

    assert set(pages) == {str(page.relative_to(REPO)) for page in PAGES[1:]}
    assert [page for page in pages if page != "docs/RESULTS.md"] == linked(
        (REPO / "README.md").read_text().split("## More")[1]
    )
    assert re.search(r"<h2 id=.try-it.>Try it<", front)


def test_the_site_asks_nothing_of_other_servers(site: Path) -> None:
    parts = r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*"
    pages = list(site.rglob("*.html"))

    assert len(pages) > len(PAGES)
    assert [part for page in pages for part in re.findall(parts, page.read_text())] == []


def test_what_a_page_of_the_site_links_to_is_there(site: Path) -> None:
    """Files beside docs/ as well; of a folder, which a site has no page for, only the name stays."""
    for page in site.rglob("index.html"):
        links = re.findall(r'href="([^"#:]+)["#]', page.read_text())
        assert [link for link in links if not (page.parent / link).exists()] == [], page
    assert (site / "params.yaml").read_bytes() == (REPO / "params.yaml").read_bytes()


def test_the_version_has_one_place() -> None:
    cited = yaml.safe_load((REPO / "CITATION.cff").read_text())["version"]
    newest = re.findall(r"^## (\d[\d.]*)", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)[0]

    assert cited == newest == __version__


def test_what_a_forge_runs_is_what_a_person_runs() -> None:
    (job,) = yaml.safe_load((REPO / ".github/workflows/tests.yml").read_text())["jobs"].values()
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (REPO / "Makefile").read_text()

    assert [step["run"] for step in job["steps"][-2:]] == [".ci/run", "make test-release"]
    assert (REPO / ".ci/run").stat().st_mode & 0o100 and "\ntest-release:" in makefile
    for hook in hooks:
        words = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{words}" in makefile, hook["id"]


def test_every_remark_on_a_recording_is_explained() -> None:
    from zk0.data.quality.remarks import ADVICE

    rows = re.findall(r"^\| ([\w ]+?)(?: \(grave[^)]*\))? \|", (REPO / "docs/data.md").read_text(), re.MULTILINE)

    assert set(ADVICE) <= set(rows)
