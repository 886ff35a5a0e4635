"""Sources and the starting policy as digests."""

from __future__ import annotations

import http.server
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tests_support import REPO

from zk0.data.sim.rooms import Room
from zk0.digests import digest_folder
from zk0.files import read_json
from zk0.hub import hub_commit
from zk0.params import Params, parse_params
from zk0.sources_lock import DIGEST_CACHE, base_folder, base_kind, resolve_sources, starting_policy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LONG_AGO = 1_600_000_000


def make_params(sources: dict[str, str] | None = None, base: str = "random:nano", **changes: Any) -> Params:
    data = {key: changes.pop(key) for key in ("episodes", "noise", "fps", "unseen") if key in changes}
    sites = sources or {"cube": "sim:push-red-cube-left"}
    return parse_params({"policy": {"base": base}, "data": {"sites": sites, **data}, **changes})


def digest_of(params: Params, root: Path, name: str) -> str:
    return str(resolve_sources(params, root)["sources"][name]["digest"])


@pytest.fixture(autouse=True)
def no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZK0_BASE", raising=False)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset's folders with a few bytes in each, written long ago."""
    folder = tmp_path / "recordings"
    for name, text in {
        "meta/info.json": json.dumps({"codebase_version": "v3.0", "fps": 30, "robot_type": "so100_follower"}),
        "data/chunk-000/file-000.parquet": "rows",
        "videos/observation.images.top/chunk-000/file-000.mp4": "pictures",
        "README.md": "notes",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The embedded base, written long ago."""
    folder = Path(shutil.copytree(REPO / "models" / "nano-base", tmp_path / "base"))
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def test_lock_has_the_documented_form_and_repeats(tmp_path: Path) -> None:
    params = make_params(unseen={"cylinder": "sim:push-purple-cylinder-left"})

    lock = resolve_sources(params, tmp_path)

    assert set(lock) == {"sources", "unseen", "policy"}
    assert set(lock["sources"]["cube"]) == {"source", "digest", "detail"}
    assert lock["unseen"]["cylinder"]["source"] == "sim:push-purple-cylinder-left"
    assert set(lock["policy"]) == {"source", "digest"}
    assert json.loads(json.dumps(lock)) == resolve_sources(params, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "other",
    [
        make_params({"cube": "sim:push-green-ball-right"}),
        make_params({"cube": "sim:push-red-cube-left@0"}),
        make_params(episodes=31),
        make_params(noise=0.1),
        make_params(fps=30),
        make_params(seed=2),
    ],
    ids=["task", "room", "episodes", "noise", "fps", "seed"],
)
def test_simulated_digest_follows_what_decides_the_recording(tmp_path: Path, other: Params) -> None:
    assert digest_of(other, tmp_path, "cube") != digest_of(make_params(), tmp_path, "cube")


def test_a_room_is_told_where_one_is_named(tmp_path: Path) -> None:
    entries = resolve_sources(make_params({"a": "sim:pull-blue-bar", "b": "sim:pull-blue-bar@3"}), tmp_path)["sources"]

    assert "room" not in entries["a"]["detail"]
    assert entries["b"]["detail"]["room"] == repr(Room.of(3))


def test_simulated_digest_does_not_follow_the_rest(tmp_path: Path) -> None:
    other = make_params(federation={"rounds": 9}, threads=1)

    assert digest_of(other, tmp_path, "cube") == digest_of(make_params(), tmp_path, "cube")


def test_two_sites_with_one_task_record_different_scenes(tmp_path: Path) -> None:
    params = make_params({"a": "sim:push-red-cube-left", "b": "sim:push-red-cube-left"})

    assert digest_of(params, tmp_path, "a") != digest_of(params, tmp_path, "b")


def test_local_dataset_is_noted_and_digested(tmp_path: Path, dataset: Path) -> None:
    entry = resolve_sources(make_params({"mine": "local:recordings"}), tmp_path)["sources"]["mine"]

    assert entry["detail"]["files"] == 3
    assert entry["detail"]["robot_type"] == "so100_follower" and entry["detail"]["fps"] == 30


def test_local_digest_changes_when_a_file_grows_moves_or_goes(tmp_path: Path, dataset: Path) -> None:
    params, file = make_params({"mine": "local:recordings"}), dataset / "data" / "chunk-000" / "file-000.parquet"
    seen = [digest_of(params, tmp_path, "mine")]

    with file.open("a") as stream:
        stream.write(" and more")
    seen.append(digest_of(params, tmp_path, "mine"))
    file.rename(file.with_name("file-001.parquet"))
    seen.append(digest_of(params, tmp_path, "mine"))
    file.with_name("file-001.parquet").unlink()
    seen.append(digest_of(params, tmp_path, "mine"))

    assert len(set(seen)) == 4


def test_local_digest_does_not_follow_notes_or_place(tmp_path: Path, dataset: Path) -> None:
    before = digest_of(make_params({"mine": "local:recordings"}), tmp_path, "mine")

    (dataset / "README.md").write_text("other notes")
    dataset.rename(tmp_path / "moved")

    assert digest_of(make_params({"mine": f"local:{tmp_path / 'moved'}"}), tmp_path, "mine") == before


def test_unchanged_files_are_not_read_again(tmp_path: Path, dataset: Path) -> None:
    params, file = make_params({"mine": "local:recordings"}), dataset / "data" / "chunk-000" / "file-000.parquet"
    before = digest_of(params, tmp_path, "mine")

    file.write_text("ROWS")  # same size; the time stamp is put back, so only reading would tell
    os.utime(file, (LONG_AGO, LONG_AGO))

    assert digest_of(params, tmp_path, "mine") == before
    (tmp_path / DIGEST_CACHE).unlink()
    assert digest_of(params, tmp_path, "mine") != before


def test_fresh_files_are_read_again(tmp_path: Path, dataset: Path) -> None:
    params, file = make_params({"mine": "local:recordings"}), dataset / "data" / "chunk-000" / "file-000.parquet"
    file.touch()
    stamp = file.stat()
    before = digest_of(params, tmp_path, "mine")

    file.write_text("ROWS")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert digest_of(params, tmp_path, "mine") != before


def test_cache_forgets_vanished_files_and_survives_being_spoilt(tmp_path: Path, dataset: Path) -> None:
    params = make_params({"mine": "local:recordings"})
    digest_of(params, tmp_path, "mine")
    (dataset / "videos" / "observation.images.top" / "chunk-000" / "file-000.mp4").unlink()
    digest = digest_of(params, tmp_path, "mine")

    assert len(read_json(tmp_path / DIGEST_CACHE)) == 2
    (tmp_path / DIGEST_CACHE).write_text("{half of")
    assert digest_of(params, tmp_path, "mine") == digest
    assert len(read_json(tmp_path / DIGEST_CACHE)) == 2


def test_every_problem_is_listed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    params = make_params({"a": "sim:push-red-cube-lef", "b": "local:nowhere", "c": "local:empty"}, base="nowhere")

    with pytest.raises(ValueError) as error:
        resolve_sources(params, tmp_path)

    a, b, c, base = str(error.value).splitlines()
    assert a.startswith("data.sites.a: ") and "did you mean 'push-red-cube-left'?" in a
    assert "nowhere does not exist; expected the folder of a LeRobot dataset" in b
    assert "empty is no LeRobot dataset: meta/info.json not found" in c
    assert base.startswith("policy.base: ") and "hub:OWNER/NAME@REVISION" in base


def test_spoilt_dataset_description_is_refused(tmp_path: Path, dataset: Path) -> None:
    (dataset / "meta" / "info.json").write_text("[1]")

    with pytest.raises(ValueError, match="must hold a mapping, but holds list"):
        resolve_sources(make_params({"mine": "local:recordings"}), tmp_path)


def test_base_folder_digest_is_that_of_the_folder(tmp_path: Path, checkpoint: Path) -> None:
    params = make_params(base="base")
    before = resolve_sources(params, tmp_path)["policy"]

    assert before == {"source": "base", "digest": digest_folder(checkpoint)}
    vlm = checkpoint / "vlm" / "config.json"
    vlm.write_text(vlm.read_text() + " ")
    assert resolve_sources(params, tmp_path)["policy"]["digest"] not in (before["digest"], None)


def test_base_without_weights_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()

    with pytest.raises(ValueError, match=r"no policy checkpoint: model\.safetensors not found"):
        resolve_sources(make_params(base="base"), tmp_path)


def test_random_bases_differ_by_seed_and_size(tmp_path: Path) -> None:
    digests = {
        resolve_sources(make_params(base=base, seed=seed), tmp_path)["policy"]["digest"]
        for base in ("random:nano", "random:full")
        for seed in (1, 2)
    }

    assert len(digests) == 4


@pytest.mark.parametrize("base", ["random:tiny", "hub:no-owner", "models/nowhere"])
def test_unknown_base_says_what_was_expected(tmp_path: Path, base: str) -> None:
    with pytest.raises(ValueError, match=r"random:nano|OWNER/NAME"):
        resolve_sources(make_params(base=base), tmp_path)


def test_forms_of_a_base() -> None:
    assert [base_kind(b) for b in ("random:full", "hub:a/b@c", "models/x")] == ["random", "hub", "folder"]


def test_a_base_may_be_named_as_a_source_is(tmp_path: Path, checkpoint: Path) -> None:
    plain, local = (resolve_sources(make_params(base=f"{kind}{checkpoint}"), tmp_path) for kind in ("", "local:"))

    assert local["policy"] == plain["policy"]
    assert base_folder(f"local:{checkpoint}", "any", tmp_path) == base_folder(str(checkpoint), "any", tmp_path)


def test_champion_takes_the_place_of_the_base(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(base="random:nano")
    monkeypatch.setenv("ZK0_BASE", str(checkpoint))

    assert starting_policy(params) == str(checkpoint)
    assert resolve_sources(params, tmp_path)["policy"]["digest"] == digest_folder(checkpoint)
    monkeypatch.setenv("ZK0_BASE", "nowhere")
    with pytest.raises(ValueError, match="ZK0_BASE: there is no folder"):
        resolve_sources(params, tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server on this machine that answers as the Hub does, for one dataset and one model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = ("/api/datasets/owner/name/revision/main", "/api/models/owner/name/revision/main")
            repository = self.path.rpartition("/revision/")[0]
            code = "RevisionNotFound" if repository.endswith("owner/name") else "RepoNotFound"
            body = json.dumps({"id": "owner/name", "sha": COMMIT}).encode()
            self.send_response(200 if self.path in known else 404)
            if self.path not in known:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_hub_names_stand_for_commits(tmp_path: Path) -> None:
    lock = resolve_sources(make_params({"mine": "hub:owner/name"}, base="hub:owner/name@main"), tmp_path)

    assert lock["sources"]["mine"]["digest"] == COMMIT
    assert lock["policy"] == {"source": "hub:owner/name@main", "digest": COMMIT}


@pytest.mark.usefixtures("hub")
def test_hub_names_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="owner/name has no revision 'v9'"):
        hub_commit("owner/name", "v9", "dataset")
    with pytest.raises(ValueError, match="owner/other does not exist, or is private"):
        hub_commit("owner/other", "main", "dataset")


@pytest.mark.parametrize("how", ["offline flag", "no answer"])
def test_without_a_network_the_cached_commit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "offline flag")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--owner--name"

    with pytest.raises(ValueError, match="at 'main' is not in the local Hub cache, and ") as refused:
        hub_commit("owner/name", "main", "dataset")
    assert ("HF_HUB_OFFLINE is set" if how == "offline flag" else "the Hub cannot be reached (") in str(refused.value)
    assert str(refused.value).endswith("`hf download owner/name --repo-type dataset --revision main` fetches it")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ValueError, match="not in the local Hub cache"):
        hub_commit("owner/name", "main", "dataset")  # a name without its files
    (folder / "snapshots" / COMMIT).mkdir(parents=True)

    with caplog.at_level(logging.WARNING):
        assert hub_commit("owner/name", "main", "dataset") == COMMIT
    assert "not asked, since" in caplog.text and COMMIT[:12] in caplog.text
    assert hub_commit("owner/name", COMMIT, "dataset") == COMMIT
    with pytest.raises(ValueError, match=f"at '{COMMIT[::-1]}' is not in the local Hub cache"):
        hub_commit("owner/name", COMMIT[::-1], "dataset")
