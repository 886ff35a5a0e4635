"""`zk0 features`: ahead of time, how large, and away with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from zk0.cli.app import app
from zk0.data.load import load_frames
from zk0.data.manifest import read_manifests
from zk0.errors import StageError
from zk0.params import parse_params
from zk0.pipeline import features
from zk0.pipeline.features import build
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import FeatureCacheError, features_for, usage

Command = Callable[..., Result]


@pytest.fixture
def project(prepared: Path, tmp_path: Path, params_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared project, and the folder that commands run in."""
    root = tmp_path / "project"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns(".cache"))
    (root / "params.yaml").write_text(yaml.safe_dump(params_content))
    monkeypatch.chdir(root)
    monkeypatch.delenv("ZK0_FEATURES", raising=False)
    return root


@pytest.fixture
def zk0(project: Path) -> Command:
    """``zk0("features", "build")`` in the project."""
    return lambda *words: CliRunner().invoke(app, words, catch_exceptions=False)


def words_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_build_computes_all_sites_frames_once(
    project: Path, zk0: Command, loaded: LoadedPolicy, params_content: dict[str, Any]
) -> None:
    settings = parse_params(params_content).features
    sites, _ = read_manifests(project)
    total = sum(m.train_frames + m.held_out_frames for m in sites)

    said = words_of(zk0("features", "build"))

    assert f"{total} frames; " in said and f"are added to {project}/.cache/features (" in said
    assert f"computing features: {2 * total} of {2 * total}" in said
    for manifest in sites:
        for episodes in (manifest.train_episodes, manifest.held_out_episodes):
            frames = load_frames(manifest, project, episodes, 0)
            found = features_for(loaded, frames, settings, project)
            assert found is not None and found.work(np.arange(len(frames))).frames == 0
    (used,) = usage(project / ".cache" / "features")
    assert used.files == 16 and used.filled == used.frames == 2 * total

    again = words_of(zk0("features", "build"))
    assert f"{total} frames; 0 bytes are added" in again and "computing" not in again


def test_build_that_was_stopped_goes_on(
    project: Path, params_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = parse_params(params_content | {"features": {"block": 4}})
    compute, done = features.FrameFeatures._compute, []

    def stop_at_ten(self: Any, clip: int, name: str, first: int) -> int:
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append((clip, name, first))
        return compute(self, clip, name, first)

    with monkeypatch.context() as patch:
        patch.setattr(features.FrameFeatures, "_compute", stop_at_ten)
        with pytest.raises(KeyboardInterrupt):
            build(project, params)
    (half,) = usage(project / ".cache" / "features")
    build(project, params)

    (whole,) = usage(project / ".cache" / "features")
    assert 0 < half.filled < whole.filled == whole.frames


def test_size_is_a_table(project: Path, zk0: Command) -> None:
    assert f"no features in {project}/.cache/features" in words_of(zk0("features", "size"))
    zk0("features", "build")
    (used,) = usage(project / ".cache" / "features")

    said = zk0("features", "size").output

    assert used.folder.name[:12] in said and str(used.filled) in said
    assert f"kB in {project}/.cache/features" in " ".join(said.split())


def test_clean_deletes_all_or_all_but_what_is_needed(project: Path, zk0: Command) -> None:
    zk0("features", "build")
    place = usage(project / ".cache" / "features")[0].folder
    needed = sorted(place.glob("*.features"))
    stale = place / f"{'0' * 32}.features"
    shutil.copy(needed[0], stale)

    assert "files of features deleted: 1 (" in words_of(zk0("features", "clean", "--keep-current"))
    assert sorted(place.glob("*.features")) == needed
    assert "files of features deleted: 16 (" in words_of(zk0("features", "clean"))
    assert list((project / ".cache" / "features").iterdir()) == []


def test_features_may_lie_on_another_disk(
    project: Path, zk0: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZK0_FEATURES", str(tmp_path / "fast"))
    zk0("features", "build")

    assert usage(tmp_path / "fast") and not (project / ".cache" / "features").exists()


def test_build_refuses_when_features_are_off(project: Path, params_content: dict[str, Any]) -> None:
    params = parse_params(params_content | {"features": {"cache": "off"}})

    with pytest.raises(StageError, match=r"features\.cache is off; set it to tokens or prefix in params\.yaml"):
        build(project, params)


def test_build_refuses_when_there_is_no_room(
    project: Path, params_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = shutil.disk_usage(project)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usual._replace(free=10_000))

    with pytest.raises(FeatureCacheError, match=r"features need .* kB in .*, but 10\.0 kB are free there"):
        build(project, parse_params(params_content))
    assert not list((project / ".cache").rglob("*.features"))


def test_build_needs_prepared_data(project: Path, params_content: dict[str, Any]) -> None:
    shutil.rmtree(project / "data")

    with pytest.raises(StageError, match="holds no site's manifest; run `zk0 prepare`"):
        build(project, parse_params(params_content))


@pytest.mark.parametrize("words", [("features",), ("features", "build"), ("features", "clean")])
def test_help_helps(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(app, [*words, "--help"]).output

    assert "Usage: " in said and "Options" in said
