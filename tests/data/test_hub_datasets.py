"""Datasets and policies of the Hub: pinned, without a network from the cache, downloaded from a server like the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, lay_out_cache, serve
from huggingface_hub import constants, snapshot_download
from so100_recordings import as_lerobot, as_old_lerobot, files_of, motor_steps, write_v3, write_v21
from tests_support import REPO

from zk0.checkpoints import CheckpointError
from zk0.data import formats as dataset_hub
from zk0.data.formats import cached_dataset, fetch_dataset
from zk0.data.manifest import read_manifests
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.hub import HubError, fetch_policy, hub_commit
from zk0.params import Params, parse_params
from zk0.pipeline import prepare, validate
from zk0.policy.checkpoint import FULL_VLM
from zk0.policy.start import load_start
from zk0.sources_lock import resolve_sources

NAME = "owner/cups"
PATCHED = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(scope="module")
def cups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [as_lerobot(motor_steps(16, seed), "degrees") for seed in range(3)]
    return write_v3(tmp_path_factory.mktemp("published") / "cups", episodes)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZK0_BASE", raising=False)
    point_to(PATCHED, monkeypatch)
    return tmp_path / "cache"


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the library is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hub(cups: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve({f"datasets/{NAME}": cups}) as served:
        point_to(served.url, monkeypatch)
        yield served


def params_of(source: str, **data: Any) -> Params:
    return parse_params({"policy": {"base": "random:nano"}, "data": {"sites": {"cups": source}, **data}})


def prepared(root: Path, params: Params) -> dict[str, Any]:
    lock = resolve_sources(params, root)
    write_json(root / "sources.lock.json", lock)
    prepare.run(root, params)
    return lock


def test_a_dataset_is_downloaded_at_its_commit(hub: Hub, cups: Path) -> None:
    folder = fetch_dataset(NAME, COMMIT)

    assert files_of(folder) == files_of(cups)
    assert folder == cached_dataset(NAME, COMMIT)


def test_what_is_in_the_cache_is_not_asked_for_again(hub: Hub) -> None:
    fetch_dataset(NAME, COMMIT)
    hub.asked.clear()

    fetch_dataset(NAME, COMMIT)
    assert hub_commit(NAME, COMMIT, "dataset") == COMMIT

    assert hub.asked == []


def test_what_was_downloaded_by_its_commit_is_known_by_its_branch_offline(
    hub: Hub, cups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was made with a network can be made again without one."""
    source = f"hub:{NAME}@main"
    locked = prepared(tmp_path, params_of(source))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert resolve_sources(params_of(source), tmp_path) == locked
    found = snapshot_download(NAME, repo_type="dataset", revision="main")  # the Hub's own client finds it, too
    assert files_of(Path(found)) == files_of(cups)


def test_a_download_that_broke_off_goes_on(hub: Hub, cups: Path) -> None:
    hub.broken = (".parquet",)
    with pytest.raises(DataError, match="is not, or not wholly, in the local Hub cache"):
        fetch_dataset(NAME, COMMIT)
    assert cached_dataset(NAME, COMMIT) is None
    hub.broken = ()

    assert files_of(fetch_dataset(NAME, COMMIT)) == files_of(cups)


@pytest.mark.usefixtures("offline")
def test_what_an_older_client_cached_serves_offline(cache: Path, cups: Path) -> None:
    snapshot = lay_out_cache(cache, NAME, "dataset", cups)

    assert fetch_dataset(NAME, COMMIT) == snapshot


@pytest.mark.usefixtures("offline")
def test_absent_and_offline_names_the_command() -> None:
    with pytest.raises(DataError) as refused:
        fetch_dataset(NAME, COMMIT)

    assert str(refused.value) == (
        f"hub:{NAME}@{COMMIT} is not, or not wholly, in the local Hub cache, and HF_HUB_OFFLINE is set. Where there is "
        f"a network, `hf download {NAME} --repo-type dataset --revision {COMMIT}` fetches it, or name a copy of it as "
        "local:FOLDER"
    )


@pytest.mark.usefixtures("offline")
def test_half_of_it_cached_is_absent(cache: Path, cups: Path) -> None:
    snapshot = lay_out_cache(cache, NAME, "dataset", cups)
    next((snapshot / "videos").rglob("*.mp4")).resolve().unlink()  # a blob that was cleaned away

    with pytest.raises(DataError, match="is not, or not wholly, in the local Hub cache"):
        fetch_dataset(NAME, COMMIT)


def test_no_answer_says_so() -> None:
    with pytest.raises(DataError, match=r"the Hub cannot be reached \(\w+: .+\)\. Where there is a network, `hf"):
        fetch_dataset(NAME, COMMIT)


def test_an_older_format_is_refused_before_its_videos_are_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.folders[f"datasets/{NAME}"] = write_v21(tmp_path / "old", [as_old_lerobot(motor_steps(8))])

    with pytest.raises(DataError, match=rf"`zk0 data convert hub:{NAME}@{COMMIT} FOLDER`"):
        fetch_dataset(NAME, COMMIT)

    assert not [path for path in hub.asked if path.endswith((".mp4", ".parquet"))]
    assert dataset_hub.fetch_dataset(NAME, COMMIT, any_format=True).is_dir()


def test_a_repository_that_lacks_files(hub: Hub, cups: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    for name, content in files_of(cups).items():
        if not name.startswith("data/"):
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            (half / name).write_bytes(content)
    hub.folders[f"datasets/{NAME}"] = half

    with pytest.raises(DataError, match=r"lacks files that its metadata speaks of: data/chunk-000/file-000\.parquet"):
        fetch_dataset(NAME, COMMIT)


@pytest.mark.parametrize("source", [f"hub:{NAME}", f"hub:{NAME}@main", f"hub:{NAME}@{COMMIT}"])
def test_what_is_locked_is_the_commit(hub: Hub, tmp_path: Path, source: str) -> None:
    lock = prepared(tmp_path, params_of(source))

    assert lock["sources"]["cups"]["digest"] == COMMIT
    (site,), _ = read_manifests(tmp_path)
    assert site.revision == COMMIT and site.repo_id == NAME
    assert Path(site.root).parts[-2:] == ("snapshots", COMMIT)


def test_a_branch_that_moved_on_since_is_still_the_commit_that_was_locked(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of(f"hub:{NAME}")
    prepared(tmp_path, params)
    asked = [path for path in hub.asked if "/resolve/" in path]

    prepare.run(tmp_path, params)

    assert all(f"/resolve/{COMMIT}/" in path for path in asked)
    assert [path for path in hub.asked if "/resolve/" in path] == asked


def test_validate_notes_what_may_move_and_what_to_write_instead(hub: Hub, tmp_path: Path) -> None:
    params = params_of(f"hub:{NAME}")

    _, check = validate._sources(tmp_path, params)
    notes = validate._revisions(resolve_sources(params, tmp_path))

    assert check.passed
    (note,) = notes
    assert (note.name, note.severity, note.passed) == ("revision of cups", "warning", False)
    assert note.found == f"hub:{NAME} is commit {COMMIT[:12]} now, and may move on"
    assert note.expected.startswith(f"hub:{NAME}@{COMMIT}")
    assert validate._revisions(resolve_sources(params_of(f"hub:{NAME}@{COMMIT}"), tmp_path)) == []


@pytest.mark.usefixtures("offline")
def test_a_branch_offline_is_what_the_cache_last_saw_of_it(cache: Path, cups: Path, tmp_path: Path) -> None:
    lay_out_cache(cache, NAME, "dataset", cups)

    lock = prepared(tmp_path, params_of(f"hub:{NAME}@main"))

    assert lock["sources"]["cups"]["digest"] == COMMIT
    assert read_json(tmp_path / "results" / "data.json")["sources"][0]["revision"] == COMMIT


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_validate_refuses_what_is_not_there_offline(tmp_path: Path, revision: str) -> None:
    with pytest.raises(ValueError, match=rf"`hf download {NAME} --repo-type dataset --revision {revision}` fetches it"):
        resolve_sources(params_of(f"hub:{NAME}@{revision}"), tmp_path)


def test_hf_download_puts_it_where_it_is_found(
    hub: Hub, cups: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that the message names, as another process."""
    line = "hf download OWNER/NAME --repo-type dataset --revision main"
    assert line in (REPO / "docs" / "data.md").read_text()
    words = line.replace("OWNER/NAME", NAME).split()[1:]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *words],
        env=environment | {"HF_HOME": str(tmp_path / "home")},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert files_of(fetch_dataset(NAME, hub_commit(NAME, "main", "dataset"))) == files_of(cups)


@pytest.fixture
def policy(hub: Hub) -> str:
    """The embedded base, as `zk0 publish --to hub:` puts it there."""
    hub.folders["models/owner/base"] = REPO / "models" / "nano-base"
    return "owner/base"


def test_a_policy_that_carries_its_language_model_loads_from_the_hub(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"policy": {"base": f"hub:{policy}"}, "data": {"sites": {"a": "sim:pull-blue-bar"}}}
    lock = resolve_sources(parse_params(content), tmp_path)
    assert lock["policy"]["digest"] == COMMIT

    assert load_start(tmp_path, f"hub:{policy}@{COMMIT}", "cpu").chunk == 8
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_start(tmp_path, f"hub:{policy}@{COMMIT}", "cpu").chunk == 8


@pytest.mark.usefixtures("offline")
def test_a_policy_that_is_absent_and_offline_names_the_command() -> None:
    with pytest.raises(HubError, match=rf"`hf download owner/base --revision {COMMIT}` fetches it"):
        fetch_policy("owner/base", COMMIT)


def test_a_repository_that_is_no_policy(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("{}")
    hub.folders["models/owner/notes"] = tmp_path / "notes"

    with pytest.raises(HubError, match=r"is no policy checkpoint: model\.safetensors not found in it"):
        load_start(tmp_path, f"hub:owner/notes@{COMMIT}", "cpu")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """The embedded base with a step that starts a process."""
    base = Path(shutil.copytree(REPO / "models" / "nano-base", tmp_path / "spoilt"))
    file = base / "policy_preprocessor.json"
    content = json.loads(file.read_text())
    content["steps"].append({"class": "subprocess.Popen", "config": {"args": ["touch", str(tmp_path / "it-ran")]}})
    file.write_text(json.dumps(content))
    return base


def test_a_policy_that_would_run_something_is_refused_before_its_weights_are_fetched(
    hub: Hub, spoilt: Path, tmp_path: Path
) -> None:
    hub.folders["models/owner/spoilt"] = spoilt
    content = {"policy": {"base": "hub:owner/spoilt"}, "data": {"sites": {"a": "sim:pull-blue-bar"}}}

    with pytest.raises(ValueError, match=r"policy.base: .*policy_preprocessor.json, step 6: the class 'subprocess.Pop"):
        resolve_sources(parse_params(content), tmp_path)
    assert not any(path.endswith("model.safetensors") for path in hub.asked)
    with pytest.raises(CheckpointError, match="step 6: the class 'subprocess"):
        load_start(tmp_path, f"hub:owner/spoilt@{COMMIT}", "cpu")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.usefixtures("offline")
def test_links_of_the_cache_lead_to_its_own_blobs_only(cache: Path, tmp_path: Path) -> None:
    snapshot = lay_out_cache(cache, "owner/base", "model", REPO / "models" / "nano-base")
    assert load_start(tmp_path, f"hub:owner/base@{COMMIT}", "cpu").chunk == 8
    (snapshot / "vlm" / "README.md").symlink_to("/etc/passwd")

    with pytest.raises(
        CheckpointError, match=r"^hub:owner/base@0123456789ab is refused: vlm/README.md: a link to /etc/pas"
    ):
        load_start(tmp_path, f"hub:owner/base@{COMMIT}", "cpu")


@pytest.mark.usefixtures("offline")
def test_a_language_model_that_is_absent_and_offline_is_named(cache: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(REPO / "models" / "nano-base", tmp_path / "base"))
    shutil.rmtree(base / "vlm")
    for file in base.glob("*.json"):
        file.write_text(file.read_text().replace('"vlm"', json.dumps(FULL_VLM)))
    lay_out_cache(cache, "owner/base", "model", base)

    said = rf"needs {FULL_VLM}, which is not in the local Hub cache.*`hf download {FULL_VLM}"
    with pytest.raises(HubError, match=said):
        load_start(tmp_path, f"hub:owner/base@{COMMIT}", "cpu")
