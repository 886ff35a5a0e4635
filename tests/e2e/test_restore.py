"""From a model version to its data: what `zk0 model show` prints, typed into a fresh clone."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests_support import REPO, Project

from zk0.digests import digest_file, digest_folder

pytestmark = [pytest.mark.services, pytest.mark.release]

RESTORED = ("data/recordings", "data/manifests", "checkpoints", "results/federation")
# The one command of the README: another strategy, compared with the present run.
_FEDPROX = "dvc exp run -n prox -S federation.strategy=fedprox -S federation.proximal_mu=0.1"
_NIGHTLY = "from flows.federate import federate; federate(start='champion', save_as_experiment=True)"
_SHOW = "dvc exp show --only-changed --drop "


@dataclass
class Runs:
    """A project that was run in three ways, its remotes, and what each run left, by model version."""

    project: Project
    remote: Path
    store: Path
    left: dict[int, dict[str, str]] = field(default_factory=dict)
    status: list[str] = field(default_factory=list)

    def note(self, version: int) -> None:
        self.left[version] = digests(self.project.root)

    def shown(self, version: int) -> dict[str, Any]:
        return dict(json.loads(self.project.run("zk0", "model", "show", str(version), "--json").stdout))


def digests(root: Path) -> dict[str, str]:
    return {name: digest_folder(root / name) for name in RESTORED} | {"params": digest_file(root / "params.yaml")}


@pytest.fixture(scope="module")
def runs(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The finished project's `dvc repro`, a `dvc exp run` and a nightly; its files are put back as they were."""
    base = tmp_path_factory.mktemp("remotes")
    made = Runs(finished, base / "remote.git", base / "store")
    made.note(1)
    finished.run(*_FEDPROX.split(), timeout=580)
    made.note(2)
    finished.change_params(lambda params: params["training"].update(local_steps=2))
    finished.run("python", "-c", _NIGHTLY, timeout=580)
    made.note(3)
    made.status = finished.run("git", "status", "--short").stdout.splitlines()
    finished.run("git", "checkout", "params.yaml", "dvc.lock")
    finished.run("dvc", "checkout", "--force")
    assert digests(finished.root) == made.left[1]
    finished.run("git", "init", "-q", "--bare", str(made.remote))
    finished.run("git", "remote", "add", "origin", str(made.remote))
    finished.run("git", "push", "-q", "origin", "HEAD")
    return made


def test_without_remotes_it_says_what_cannot_be_brought_back(runs: Runs) -> None:
    shown = runs.shown(1)

    assert shown["commands"] == shown["push"] == []
    assert shown["cannot"] == [
        "no data in another clone, while DVC has no remote outside this folder: "
        "`dvc remote add --local --default backup FOLDER_OR_URL`"
    ]


@pytest.mark.parametrize(("version", "name"), [(1, "fedavg-"), (2, "prox"), (3, "nightly-")])
def test_a_fresh_clone_has_the_run_back(runs: Runs, tmp_path: Path, version: int, name: str) -> None:
    remote = ("dvc", "remote", "add", "--force", "--local", "--default", "backup", str(runs.store))
    runs.project.run(*remote)
    shown = runs.shown(version)
    clone = Project(tmp_path / "clone", runs.project.env)

    for command in shown["push"]:
        runs.project.run(*shlex.split(command))
    runs.project.run("git", "clone", "-q", str(runs.remote), str(clone.root))
    clone.run(*remote)
    for command in shown["commands"]:
        clone.run(*shlex.split(command))

    assert shown["cannot"] == []
    assert shown["dvc_experiment"].startswith(name)
    assert digests(clone.root) == runs.left[version]
    assert digest_folder(clone.root / "checkpoints" / "best") == shown["digest"]
    if version == 1:  # nothing would run again, but the putting into this clone's MLflow
        clone.run("zk0", "validate")
        assert set(json.loads(clone.run("dvc", "status", "--json").stdout)) == {"validate", "track"}


def test_a_run_leaves_nothing_uncommitted_but_the_lock_and_params(runs: Runs) -> None:
    assert runs.status == [" M dvc.lock", " M params.yaml"]
    assert [runs.shown(version)["git_dirty"] for version in (1, 2, 3)] == [False, True, True]


def test_the_documented_tables_fit_100_columns(runs: Runs) -> None:
    (line,) = [line for line in (REPO / "README.md").read_text().splitlines() if line.startswith(_SHOW)]

    shown = runs.project.run(*shlex.split(line), "--no-pager", "--rev", "HEAD~1", COLUMNS="100").stdout
    both = runs.project.run(*shlex.split(line), "--no-pager", "-A", COLUMNS="100").stdout
    differences = runs.project.run("dvc", "metrics", "diff", "prox", COLUMNS="100").stdout

    assert "fedavg-" in shown
    assert all(word in both for word in ("[prox]", "[nightly-", "error_deg"))
    assert "error_deg" in differences
    assert max(len(row) for table in (shown, both, differences) for row in table.splitlines()) <= 100
