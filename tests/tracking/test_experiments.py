"""A finished run is kept as a DVC experiment, beside index and working tree, and leads back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml

from zk0.machine.repository import default_remote
from zk0.tracking.experiments import Kept, here, keep
from zk0.tracking.lineage import restoring

LOCK = {
    "schema": "2.0",
    "stages": {
        "federate": {
            "cmd": "zk0 federate",
            "params": {"params.yaml": {"seed": 1, "data.fps": 10, "privacy.mode": "off"}},
        },
        "track": {"cmd": "zk0 track", "params": {"params.yaml": {"seed": 7}}},
    },
}


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a commit, a changed file and a dvc.lock, within the stage `track` of `dvc repro`."""
    root = tmp_path / "repository" / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").touch()
    (root / "params.yaml").write_text("seed: 1\ndata: {fps: 10}\nprivacy: {mode: 'off'}\n")
    (root / "code.py").write_text("committed\n")
    git(root.parent, "init", "-q")
    git(root.parent, "add", "-A")
    git(root.parent, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "first")
    (root / "code.py").write_text("changed\n")
    (root / "dvc.lock").write_text(dumps_yaml(LOCK))
    monkeypatch.setenv("DVC_STAGE", "track")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    for nobody in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(nobody, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return root


def test_an_experiment_holds_code_params_and_lock_and_touches_nothing(root: Path) -> None:
    before = git(root, "status", "--porcelain")

    assert keep(root, "fedavg-1") == Kept("fedavg-1")

    head = git(root, "rev-parse", "HEAD")
    reference = f"refs/exps/{head[:2]}/{head[2:]}/fedavg-1"
    assert git(root, "show", f"{reference}:project/code.py") == "changed"
    lock = loads_yaml(git(root, "show", f"{reference}:project/dvc.lock"))
    assert lock["stages"] == {"federate": LOCK["stages"]["federate"]}  # track is not over; off is no False
    assert git(root, "rev-parse", f"{reference}^") == head
    assert git(root, "status", "--porcelain") == before
    assert here(root, "fedavg-1") and not here(root, "fedavg-2")


def test_a_name_stands_for_one_experiment(root: Path) -> None:
    keep(root, "fedavg-1")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "second")
    keep(root, "fedavg-1")

    (found,) = git(root, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    assert git(root, "rev-parse", f"{found}^") == git(root, "rev-parse", "HEAD")


def test_of_dvc_exp_run_the_name_is_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "vying-puns")

    assert keep(root, "fedavg-1") == Kept("vying-puns")
    assert not here(root, "fedavg-1")


def test_what_git_does_not_know_is_named(root: Path) -> None:
    (root / "new.py").touch()

    assert keep(root, "fedavg-1").without == ("new.py",)


def test_why_a_run_is_not_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "params.yaml").write_text("seed: 2\ndata: {fps: 30}\nprivacy: {mode: 'off'}\n")
    assert keep(root, "fedavg-1") == Kept(None, "params have changed since it ran: data.fps, seed")
    (root / "dvc.lock").unlink()
    assert keep(root, "fedavg-1") == Kept(None, "there is no dvc.lock")
    assert keep(tmp_path, "fedavg-1") == Kept(None, "there is no commit of git here to keep it beside")
    monkeypatch.delenv("DVC_STAGE")
    assert keep(root, "fedavg-1") == Kept(None, "`zk0 track` was not run by `dvc repro`")


def test_the_way_back_needs_remotes_and_names_what_stays_away(root: Path, tmp_path: Path) -> None:
    keep(root, "fedavg-1")
    sources = ["sim:push-red-cube-left", "local:/recordings/kitchen"]

    alone = restoring(root, "4f2a91c", "fedavg-1", "", sources[:1])
    assert (alone.push, alone.commands) == ([], [])
    assert alone.here == ["git checkout 4f2a91c", "dvc exp apply fedavg-1"]
    assert [reason.partition(",")[0] for reason in alone.cannot] == [
        "nothing in another clone",
        "no data in another clone",
    ]

    git(root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (root / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = b\n['remote \"b\"']\n    url = {tmp_path / 'store'}\n"
    )
    whole = restoring(root, "4f2a91c", "fedavg-1", "new.py", sources)
    assert whole.push == ["dvc exp push origin fedavg-1"]
    assert whole.commands == ["dvc exp pull origin fedavg-1", *alone.here]
    assert whole.cannot == [
        "files that git did not know: new.py",
        "recordings that DVC does not hold, which must be where they were: local:/recordings/kitchen",
    ]


@pytest.mark.parametrize(
    ("url", "counts"), [("../.cache/store", False), ("../../elsewhere", True), ("s3://bucket/zk0", True)]
)
def test_a_remote_inside_the_project_is_none(root: Path, url: str, counts: bool) -> None:
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = b\n['remote \"b\"']\n    url = {url}\n")

    assert (default_remote(root) is not None) == counts
