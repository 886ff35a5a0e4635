"""prepare, from sources to manifests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zk0.data.dataset import DatasetFolder
from zk0.data.manifest import MANIFESTS, read_manifests
from zk0.errors import DataError
from zk0.files import read_json, write_json
from zk0.params import Params, parse_params
from zk0.pipeline import prepare
from zk0.so100 import JOINTS
from zk0.sources_lock import resolve_sources

Prepare = Callable[..., Params]


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    """Resolves and prepares in ``tmp_path``: ``run(sites, **data)``."""

    def prepare_project(sites: dict[str, str], **data: Any) -> Params:
        content = {"threads": 1, "policy": {"base": "random:nano"}, "data": {"sites": sites, **data}}
        params = parse_params(content)
        write_json(tmp_path / "sources.lock.json", resolve_sources(params, tmp_path))
        prepare.run(tmp_path, params)
        return params

    return prepare_project


def edit_info(folder: Path, **changes: Any) -> None:
    info = json.loads((folder / "meta" / "info.json").read_text())
    (folder / "meta" / "info.json").write_text(json.dumps(info | changes))


def test_simulated_sources_are_recorded_split_and_described(tmp_path: Path, run: Prepare) -> None:
    (tmp_path / "data" / "recordings" / "of-old").mkdir(parents=True)
    write_json(tmp_path / MANIFESTS / "of-old.json", {})

    run(
        {"cube": "sim:push-red-cube-left", "disc": "sim:press-magenta-disc"},
        unseen={"purple": "sim:push-purple-cylinder-left"},
        episodes=3,
    )

    sites, unseen = read_manifests(tmp_path)
    assert [(m.site, m.partition, m.role) for m in sites] == [("cube", 0, "site"), ("disc", 1, "site")]
    assert [(m.site, m.partition, m.train_episodes, m.held_out_episodes) for m in unseen] == [
        ("purple", -1, (), (0, 1, 2))
    ]
    assert sorted(p.name for p in (tmp_path / "data" / "recordings").iterdir()) == ["cube", "disc", "purple"]
    lock = read_json(tmp_path / "sources.lock.json")
    for manifest in sites:
        assert sorted(manifest.train_episodes + manifest.held_out_episodes) == [0, 1, 2]
        assert len(manifest.held_out_episodes) == 1
        assert (manifest.root, manifest.fps) == (f"data/recordings/{manifest.site}", 10)
        assert (manifest.robot_type, manifest.joints) == ("so101_follower", JOINTS)
        assert manifest.revision == lock["sources"][manifest.site]["digest"]
        frames = DatasetFolder(tmp_path / manifest.root, "x").table
        assert manifest.train_frames + manifest.held_out_frames == len(frames)
    assert sites[1].tasks == ("press the magenta disc",)
    report = read_json(tmp_path / "results" / "data.json")
    assert [partition["site"] for partition in report["partitions"]] == ["cube", "disc", "purple"]


def test_one_source_dealt_to_many_sites(prepared: Path, recorded: Path) -> None:
    sites, unseen = read_manifests(prepared)

    assert [(m.site, m.partition) for m in sites] == [("cubes-0", 0), ("cubes-1", 1)] and not unseen
    assert all(m.root == str(recorded) and m.source == f"local:{recorded}" for m in sites)
    episodes = [e for m in sites for e in (*m.train_episodes, *m.held_out_episodes)]
    assert sorted(episodes) == list(range(8))
    assert [len(m.train_episodes) for m in sites] == [3, 3]


def test_by_task_gives_each_site_one_instruction(tmp_path: Path, recorded: Path, run: Prepare) -> None:
    run({"cubes": f"local:{recorded}"}, partition={"scheme": "by-task", "sites": 2})

    assert [m.tasks for m in read_manifests(tmp_path)[0]] == [("touch the green cube",), ("touch the red cube",)]


def test_same_params_same_manifests_and_another_seed_others(
    tmp_path: Path, prepared: Path, small_params: Params
) -> None:
    shutil.copy(prepared / "sources.lock.json", tmp_path)
    prepare.run(tmp_path, small_params)
    again = read_manifests(tmp_path)
    prepare.run(tmp_path, small_params.model_copy(update={"seed": 2}))

    assert again == read_manifests(prepared)
    assert [m.digest for m in read_manifests(tmp_path)[0]] != [m.digest for m in again[0]]


def test_digest_changes_with_the_cameras_names(tmp_path: Path, prepared: Path, recorded: Path, run: Prepare) -> None:
    sources = {"cubes": f"local:{recorded}"}
    run(sources)
    plain = read_manifests(tmp_path)[0][0]
    run(sources, cameras={"top": "wrist", "wrist": "top"})
    crossed = read_manifests(tmp_path)[0][0]

    assert crossed.camera_sources["observation.images.top"] == "observation.images.wrist"
    assert crossed.cameras == plain.cameras and crossed.digest != plain.digest


def test_two_cameras_cannot_have_one_name(tmp_path: Path, recorded: Path, run: Prepare) -> None:
    with pytest.raises(DataError, match=r"data\.cameras makes both .*top and .*wrist of .* observation\.images\.wrist"):
        run({"cubes": f"local:{recorded}"}, cameras={"top": "wrist"})


def test_mixed_embodiments_are_refused(tmp_path: Path, recorded: Path, run: Prepare) -> None:
    other = Path(shutil.copytree(recorded, tmp_path / "other"))
    edit_info(other, robot_type="koch_follower")

    with pytest.raises(DataError, match="mixed embodiments: 'a' is a so101_follower, 'b' a koch_follower"):
        run({"a": f"local:{recorded}", "b": "local:other"})
    assert not (tmp_path / MANIFESTS).exists()


def test_other_cameras_are_refused(tmp_path: Path, recorded: Path, run: Prepare) -> None:
    other = Path(shutil.copytree(recorded, tmp_path / "other"))
    features = json.loads((other / "meta" / "info.json").read_text())["features"]
    del features["observation.images.wrist"]
    edit_info(other, features=features)

    with pytest.raises(DataError, match=r"'b' has cameras observation\.images\.top, 'a' observation\.images\.top, obs"):
        run({"a": f"local:{recorded}", "b": "local:other"})


def test_one_dataset_under_two_names_is_refused(recorded: Path, run: Prepare) -> None:
    with pytest.raises(DataError, match="partitions 'a' and 'b' overlap"):
        run({"a": f"local:{recorded}", "b": f"local:{recorded}"})


def test_unseen_task_that_a_site_trains_on_is_refused(recorded: Path, run: Prepare) -> None:
    with pytest.raises(DataError, match="partitions 'a' and 'b' overlap"):
        run({"a": f"local:{recorded}"}, unseen={"b": f"local:{recorded}"})


def test_unfit_source_leaves_the_last_manifests(tmp_path: Path, recorded: Path, run: Prepare) -> None:
    other = Path(shutil.copytree(recorded, tmp_path / "other"))
    run({"a": "local:other"})
    before = read_manifests(tmp_path)
    edit_info(other, fps=30)

    with pytest.raises(DataError, match="has 30 frames per second, the federation 10"):
        run({"a": "local:other"})
    assert read_manifests(tmp_path) == before


def test_source_that_was_not_resolved_is_refused(tmp_path: Path, prepared: Path, recorded: Path) -> None:
    shutil.copy(prepared / "sources.lock.json", tmp_path)
    params = parse_params({"policy": {"base": "random:nano"}, "data": {"sites": {"new": f"local:{recorded}"}}})

    with pytest.raises(DataError, match=r"sources\.lock\.json does not know 'new'; run `zk0 validate`"):
        prepare.run(tmp_path, params)
