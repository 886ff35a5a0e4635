"""`zk0 init` lays a project out, and `--upgrade` renews it without touching what its owner has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs_commands import typed
from tests_support import REPO

from zk0.digests import new_digest
from zk0.errors import StageError
from zk0.params import load_params
from zk0.projects import layout, template


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose git knows no name."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    layout.lay_out(tmp_path / "arms")
    return tmp_path / "arms"


def held(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def dvc_is_content(folder: Path) -> bool:
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.split()[:2] == ["validate", "prepare"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_project_has_all_that_a_run_reads(project: Path) -> None:
    params = load_params(project / "params.yaml")

    assert (project / params.policy.base / "model.safetensors").is_file()
    assert {path.name for path in (project / "profiles").iterdir()} == {
        path.name for path in (REPO / "profiles").iterdir()
    }
    assert (project / "flows/federate.py").read_bytes() == (REPO / "flows/federate.py").read_bytes()
    assert not [path for path in project.rglob("*") if "__pycache__" in path.parts]


def test_its_deployments_are_of_flows_that_it_has(project: Path) -> None:
    deployments = yaml.safe_load((project / "prefect.yaml").read_text())["deployments"]

    entries = {one["entrypoint"].partition(":")[0]: one for one in deployments}

    assert "flows/testing.py" not in entries and len(entries) == len(deployments) > 5
    assert [entry for entry in entries if not (project / entry).is_file()] == []
    assert entries["flows/benchmark.py"]["parameters"] == {"peers": False}


def test_git_has_it_and_nothing_is_left_to_commit(project: Path) -> None:
    assert git(project, "log", "--format=%s") == "zk0 init\n"
    assert git(project, "status", "--porcelain", "--ignored") == ""


def test_inside_another_repository_it_makes_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")

    _, told = layout.lay_out(tmp_path / "arms")

    assert told == f"commit them to git, which has {tmp_path}"
    assert dvc_is_content(tmp_path / "arms")
    assert not (tmp_path / "arms/.git").exists()


def test_without_git_dvc_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    _, told = layout.lay_out(tmp_path / "arms")

    assert "git is not installed" in told
    assert dvc_is_content(tmp_path / "arms")


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "cups/meta").mkdir(parents=True)
    (tmp_path / "cups/meta/info.json").write_text("mine")

    layout.lay_out(tmp_path)

    assert (tmp_path / "cups/meta/info.json").read_text() == "mine"
    assert git(tmp_path, "status", "--porcelain") == "?? cups/\n"


@pytest.mark.parametrize("there", ["flows/train.py", "models", "dvc.yaml"])
def test_what_is_in_the_way_is_named_and_nothing_is_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")

    with pytest.raises(StageError, match=there):
        layout.lay_out(tmp_path)

    assert held(tmp_path) == {there: b"mine"}


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "arms").symlink_to(tmp_path / "disk")

    layout.lay_out(tmp_path / "arms")

    assert (tmp_path / "disk/params.yaml").is_file()


def test_nothing_outside_the_project_is_removed(project: Path) -> None:
    other = project.parent / "other"
    other.write_text("mine")
    noted = json.loads((project / ".zk0.json").read_text())
    noted["files"]["../other"] = new_digest(b"mine").hexdigest()
    (project / ".zk0.json").write_text(json.dumps(noted))

    layout.upgrade(project)

    assert other.read_text() == "mine"


def test_a_second_time_is_refused(project: Path) -> None:
    with pytest.raises(StageError, match="zk0 init --upgrade"):
        layout.lay_out(project)


def test_a_disk_that_fills_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    written = []

    def full(path: Path, raw: bytes) -> None:
        if len(written) == 20:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(raw)

    monkeypatch.setattr(layout, "write_bytes", full)

    with pytest.raises(OSError, match="No space"):
        layout.lay_out(tmp_path)

    assert list(tmp_path.rglob("*")) == [tmp_path / "data"]


def test_an_upgrade_keeps_what_its_owner_changed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held(project)
    mine = {"params.yaml": b"threads: 3\n", "flows/train.py": b"mine\n", "profiles/demo.yaml": b"mine too\n"}
    for name, raw in mine.items():
        (project / name).write_bytes(raw)
    newer = {place: raw for place, raw in template.content().items() if place != Path("tasks/train.py")}
    for name in ("params.yaml", "flows/train.py", "flows/client.py"):
        newer[Path(name)] += b"# newer\n"
    newer[Path("flows/more.py")] = b"new\n"
    monkeypatch.setattr(layout, "content", lambda: newer)

    told = typed(f"zk0 init --upgrade {project}")

    after = held(project)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {*mine, "flows/train.py.new", "flows/client.py", "flows/more.py", "tasks/train.py", ".zk0.json"}
    assert {name: after[name] for name in mine} == mine
    assert after["flows/train.py.new"] == before["flows/train.py"] + b"# newer\n"
    assert after["flows/client.py"].endswith(b"# newer\n") and "tasks/train.py" not in after
    assert "kept     flows/train.py, which you have changed; zk0's own is flows/train.py.new" in told
    assert typed(f"zk0 init --upgrade {project}") == "nothing to renew\n"


def test_only_what_was_laid_out_is_upgraded(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is no project that `zk0 init` laid out: it has no \.zk0\.json"):
        layout.upgrade(tmp_path)
    (tmp_path / ".zk0.json").write_text("{}")
    with pytest.raises(StageError, match="is not as zk0 wrote it"):
        layout.upgrade(tmp_path)
