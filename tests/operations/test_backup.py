"""Backup and restore: everything back, private, whole or not at all."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
import xxhash
from docs_commands import documented, typed

from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.files import read_json, write_json, write_text
from zk0.network.security.files import Places, set_up_security
from zk0.network.security.keys import NodeKey
from zk0.network.security.sites import SiteRegistry
from zk0.operations.backup import back_up, restore
from zk0.services.process import Services, own_environment
from zk0.tracking.store import opened


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with keys, a site, a state, a run in MLflow, and what is no part of a backup. Read only."""
    root = tmp_path_factory.mktemp("kept") / "project"
    set_up_security(root / "security", ["localhost"], "arms")
    places = Places(root / "security")
    SiteRegistry(places.registry).admit("kitchen", NodeKey.create(root.parent / "kitchen").public)
    (root / "security/sites.json.lock").unlink()  # of the command that has ended; locks are in no backup
    write_text(root / "state/0123456789abcdef/rows.json", "[]")
    write_text(root / "state/waiting/reply", "half an update")
    write_text(root / "params.yaml", "seed: 1")
    write_text(root / "deployment.yaml", "federation: arms")
    write_text(root / "data/recordings/video", "frames")
    with opened(root, create=True) as client:
        run = client.create_run(client.create_experiment("zk0", artifact_location="mlruns/1"))
        client.log_metric(run.info.run_id, "loss", 0.5)
        client.log_text(run.info.run_id, "a model", "model.txt")
        client.set_terminated(run.info.run_id)
    return root


@pytest.fixture
def file(kept: Path, tmp_path: Path) -> Path:
    back_up(kept, tmp_path / "zk0.tar.gz")
    return tmp_path / "zk0.tar.gz"


def test_backup_of_an_earlier_format_is_read(file: Path, kept: Path, tmp_path: Path) -> None:
    """Its digests were xxh3."""
    staged = tmp_path / "staged"
    with tarfile.open(file) as archive:
        archive.extractall(staged, filter="data")
    contents = read_json(staged / "backup.json")
    old = {name: xxhash.xxh3_128_hexdigest((staged / name).read_bytes()) for name in contents["files"]}
    write_json(staged / "backup.json", contents | {"format": 1, "files": old})
    with tarfile.open(file, "w:gz") as archive:
        archive.add(staged, arcname=".")

    restore(file, tmp_path / "back")

    assert digest_folder(tmp_path / "back" / "security") == digest_folder(kept / "security")
    write_json(staged / "backup.json", contents | {"format": 1})
    with tarfile.open(file, "w:gz") as archive:
        archive.add(staged, arcname=".")
    with pytest.raises(StageError, match="is damaged"):
        restore(file, tmp_path / "other")


def test_a_restored_project_is_the_one_that_was_backed_up(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the documented commands."""
    out = tmp_path / "stick/zk0.tar.gz"
    monkeypatch.chdir(kept)
    said = typed(documented("operate.md", "zk0 backup /media").replace("/media", str(tmp_path)))
    back = tmp_path / "back"
    back.mkdir()
    monkeypatch.chdir(back)
    typed(documented("operate.md", "zk0 restore").replace("/media", str(tmp_path)))

    assert "deployment.yaml, mlflow.db, mlruns, params.yaml, security, state" in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = set_up_security(back / "security", ["localhost"], "arms")  # refuses what is open to others, or expired
    assert not again.changed and digest_folder(back / "security") == digest_folder(kept / "security")
    assert [site.name for site in SiteRegistry(Places(back / "security").registry).sites()] == ["kitchen"]
    assert sorted(path.name for path in (back / "state").iterdir()) == ["0123456789abcdef"]
    assert not (back / "data").exists()
    with opened(back) as client:
        (run,) = client.search_runs(["1"])
        assert run.data.metrics == {"loss": 0.5}
        assert Path(client.download_artifacts(run.info.run_id, "model.txt")).read_text().strip() == "a model"


def test_a_database_that_is_written_to_meanwhile_is_whole(kept: Path, tmp_path: Path) -> None:
    root = tmp_path / "busy"
    shutil.copytree(kept, root, symlinks=True)
    ended = threading.Event()
    with opened(root) as client:
        (run,) = client.search_runs(["1"])

        def write() -> None:
            for step in range(10_000):
                if ended.is_set():
                    return
                client.log_metric(run.info.run_id, "busy", step, step=step)

        writer = threading.Thread(target=write)
        writer.start()
        back_up(root, tmp_path / "busy.tar.gz")
        ended.set()
        writer.join()
    back = tmp_path / "back"
    restore(tmp_path / "busy.tar.gz", back)

    with opened(back) as client:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "busy")]
    assert steps == list(range(len(steps)))


def test_a_backup_is_not_overwritten(kept: Path, file: Path) -> None:
    before = file.read_bytes()

    with pytest.raises(StageError, match="nothing overwrites a backup"):
        back_up(kept, file)
    assert file.read_bytes() == before


def test_nothing_to_back_up_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(StageError, match="holds nothing to back up"):
        back_up(tmp_path / "empty", tmp_path / "out" / "zk0.tar.gz")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_restore_overwrites_nothing(file: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    write_text(back / "params.yaml", "seed: 2")

    with pytest.raises(StageError, match=r"params\.yaml in .* would be overwritten"):
        restore(file, back)
    assert [path.name for path in back.iterdir()] == ["params.yaml"] and "2" in (back / "params.yaml").read_text()


def test_a_restore_waits_for_no_service(file: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    services = Services(back / ".run")
    services.launch("gateway", ["sleep", "60"], own_environment())
    try:
        with pytest.raises(StageError, match=r"gateway run in .*; `zk0 stop` first"):
            restore(file, back)
    finally:
        services.stop(["gateway"])


@pytest.mark.parametrize("damage", ["cut", "changed", "strange", "missing"])
def test_what_is_no_whole_backup_changes_nothing(file: Path, tmp_path: Path, damage: str) -> None:
    back, bad = tmp_path / "back", tmp_path / "bad.tar.gz"
    words = {"cut": "is no backup that could be read", "changed": "is damaged: params.yaml", "missing": "is missing"}
    if damage == "cut":
        bad.write_bytes(file.read_bytes()[:-2000])
    elif damage == "changed":
        folder = tmp_path / "content"
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        (folder / "params.yaml").write_text("seed: 3\n")
        with tarfile.open(bad, "w:gz") as archive:
            archive.add(folder, arcname=".")
    elif damage == "strange":
        with tarfile.open(bad, "w:gz") as archive:
            archive.add(__file__, arcname="backup.py")

    with pytest.raises(StageError, match=words.get(damage, "holds no readable backup.json")):
        restore(bad, back)
    assert not back.exists() or list(back.iterdir()) == []


def test_git_takes_no_backup(kept: Path, tmp_path: Path) -> None:
    """It holds the federation's keys."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)

    with pytest.raises(StageError, match=r"`git add` would take \S+zk0\.tar\.gz.*as backups/zk0\.tar\.gz"):
        back_up(kept, tmp_path / "zk0.tar.gz")
    back_up(kept, tmp_path / "backups/zk0.tar.gz")
    restore(tmp_path / "backups/zk0.tar.gz", tmp_path / "back")

    words = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    status = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "params.yaml" in status and "backups" not in status and "back/security" not in status
