"""From a model version to its data: what `zk0 model show` prints, typed into a fresh clone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests_support import Project, make_project

from zk0.files import digest_file, digest_folder

pytestmark = pytest.mark.services

RESTORED = ("data/recordings", "data/manifests", "checkpoints", "results/federation")
_NIGHTLY = "from flows.federate import federate; federate(start='champion', save_as_experiment=True)"


@dataclass
class Runs:
    """A project that was run in three ways, its remotes, and what each run left, by model version."""

    project: Project
    remote: Path
    store: Path
    left: dict[int, dict[str, str]] = field(default_factory=dict)

    def note(self, version: int) -> None:
        self.left[version] = digests(self.project.root)

    def shown(self, version: int) -> dict[str, Any]:
        return dict(json.loads(self.project.run("zk0", "model", "show", str(version), "--json").stdout))


def digests(root: Path) -> dict[str, str]:
    return {name: digest_folder(root / name) for name in RESTORED} | {"params": digest_file(root / "params.yaml")}


def smaller(params: dict[str, Any]) -> None:
    params["policy"]["base"] = "random:nano"
    params["data"] |= {"sites": {"red": "sim:push-red-cube-left"}, "unseen": {}, "episodes": 2, "held_out": 0.5}
    params["training"] |= {"local_steps": 1, "batch": 2, "warmup_steps": 0}
    params["federation"]["rounds"] = 1
    params["evaluation"] |= {"rollouts": 1, "max_steps": 1, "videos": 1, "loss_draws": 1}
    params["benchmark"] |= {"steps": 1, "chunks": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    base = tmp_path_factory.mktemp("restore")
    project = make_project(base / "project", base / "prefect")
    made = Runs(project, base / "remote.git", base / "store")
    project.change_params(smaller)
    project.run("git", "commit", "-qam", "smaller")

    project.run("dvc", "repro")
    made.note(1)

    project.run("dvc", "exp", "run", "-S", "training.learning_rate=0.001")
    made.note(2)

    project.change_params(lambda params: params["training"].update(local_steps=2))
    project.run("python", "-c", _NIGHTLY)
    made.note(3)

    project.run("git", "init", "-q", "--bare", str(made.remote))
    project.run("git", "remote", "add", "origin", str(made.remote))
    project.run("git", "push", "-q", "origin", "HEAD")
    yield made


def test_without_remotes_it_says_what_cannot_be_brought_back(runs: Runs) -> None:
    shown = runs.shown(1)

    assert shown["commands"] == shown["push"] == []
    assert shown["cannot"] == [
        "no data in another clone, while DVC has no remote outside this folder: "
        "`dvc remote add --local --default backup FOLDER_OR_URL`"
    ]


@pytest.mark.parametrize(("version", "name"), [(1, "fedavg-"), (2, ""), (3, "nightly-")])
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
    assert runs.project.run("git", "status", "--short").stdout.splitlines() == [" M params.yaml", "?? dvc.lock"]
    assert [runs.shown(version)["git_dirty"] for version in (1, 2, 3)] == [False, True, True]
