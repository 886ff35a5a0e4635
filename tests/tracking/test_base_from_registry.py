"""A run may start from a registered model: resolved once to the folder of its version, since an alias moves on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from zk0.checkpoints import CheckpointError
from zk0.digests import digest_folder
from zk0.environment import needs
from zk0.federation.start import locked_base
from zk0.files import write_json
from zk0.params import Params, PromotionParams, parse_params
from zk0.policy.start import load_start
from zk0.sources_lock import base_folder, base_kind, resolve_sources
from zk0.tracking.project import track
from zk0.tracking.promotion import promote
from zk0.tracking.publish import publish_version

SITES = {"cube": "sim:push-red-cube-left"}


@pytest.fixture(autouse=True)
def no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZK0_BASE", raising=False)


def params_of(base: str) -> Params:
    return parse_params({"policy": {"base": base}, "data": {"sites": SITES}})


@pytest.mark.parametrize(
    "base",
    ["mlflow:zk0-smolvla/1", "mlflow:zk0-smolvla@champion", "mlflow:@champion", "mlflow:@challenger", "mlflow:/1"],
)
def test_a_version_and_an_alias_stand_for_its_checkpoint(tracked: Path, base: str) -> None:
    promote(tracked, "zk0-smolvla", 1, PromotionParams(), force=True)

    policy = resolve_sources(params_of(base), tracked)["policy"]

    assert base_kind(base) == "mlflow" and policy["source"] == base
    assert policy["digest"] == digest_folder(tracked / "checkpoints" / "best")
    assert policy["folder"].startswith("mlruns/") and (tracked / policy["folder"] / "model.safetensors").is_file()


def test_what_was_locked_stays_when_the_alias_moves_on(tracked: Path, files: Any) -> None:
    promote(tracked, "zk0-smolvla", 1, PromotionParams(), force=True)
    lock = resolve_sources(params_of("mlflow:@champion"), tracked)
    write_json(tracked / "sources.lock.json", lock)
    files.next_run(tracked, 2)
    files.later(tracked)
    assert track(tracked, "zk0", "zk0-smolvla").model_version == 2
    promote(tracked, "zk0-smolvla", 2, PromotionParams(), force=True)

    where, digest = locked_base(tracked)

    assert (where, digest) == (lock["policy"]["folder"], lock["policy"]["digest"])
    assert resolve_sources(params_of("mlflow:@champion"), tracked)["policy"]["digest"] != digest
    assert load_start(tracked, where, "cpu").chunk == 8


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("mlflow:zk0-smolvla/7", "policy.base: 'zk0-smolvla' has no version 7; there are: 1"),
        ("mlflow:zk0-smolvla@champion", r"policy.base: 'zk0-smolvla' has no alias '@champion'; there are: @challenger"),
        ("mlflow:other/1", "policy.base: 'other' has no version 1; there are: none"),
        ("mlflow:zk0-smolvla", "'mlflow:zk0-smolvla' is not of the form mlflow:MODEL/VERSION, mlflow:MODEL@ALIAS or"),
    ],
)
def test_what_is_not_registered_says_what_is(tracked: Path, base: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_sources(params_of(base), tracked)


def test_files_that_are_gone(tracked: Path) -> None:
    shutil.rmtree(tracked / "mlruns/1/models")

    with pytest.raises(ValueError, match="the files of 'zk0-smolvla', version 1, are gone"):
        resolve_sources(params_of("mlflow:zk0-smolvla/1"), tracked)


def test_a_version_whose_files_would_run_something_is_refused(tracked: Path, tmp_path: Path) -> None:
    """Neither the code beside its checkpoint is run nor what the checkpoint names."""
    runs = {"class": "subprocess.Popen", "config": {"args": ["touch", str(tmp_path / "it-ran")]}}
    for file in tracked.glob("mlruns/**/policy_preprocessor.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"steps": [*content["steps"], runs]}))
    for code in tracked.glob("mlruns/**/serving.py"):
        code.write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")

    with pytest.raises(ValueError, match=r"policy.base: .*step 6: the class 'subprocess.Popen'"):
        resolve_sources(params_of("mlflow:zk0-smolvla/1"), tracked)
    with pytest.raises(CheckpointError, match="step 6"):
        publish_version(tracked, "zk0-smolvla", 1, f"local:{tmp_path / 'published'}")
    assert [path.name for path in tmp_path.iterdir()] == ["tracked"]


@pytest.mark.parametrize("place", ["../../../..", "/etc"])
def test_a_version_that_names_files_elsewhere(tracked: Path, place: str) -> None:
    for described in tracked.glob("mlruns/**/MLmodel"):
        described.write_text(re.sub(r"(\n +path: ).*", rf"\g<1>{place}", described.read_text()))

    with pytest.raises(ValueError, match="which is not among the model's own files"):
        resolve_sources(params_of("mlflow:zk0-smolvla/1"), tracked)


def test_a_project_that_tracked_nothing_yet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mlflow\.db is missing; `zk0 track` makes it"):
        resolve_sources(params_of("mlflow:@champion"), tmp_path)


def test_its_size_counts_as_any_folders(tracked: Path) -> None:
    params = params_of("mlflow:zk0-smolvla/1")
    folder = base_folder(params.policy.base, params.tracking.model, tracked)
    assert folder is not None

    assert needs.policy_bytes(params, tracked) == needs.policy_bytes(params, tracked, str(folder))
    assert needs.policy_bytes(params, tracked, "mlflow:zk0-smolvla/7") == 0


def test_a_base_that_was_not_resolved_says_who_does(tracked: Path) -> None:
    with pytest.raises(ValueError, match=r"mlflow:@champion stands for a folder that `zk0 validate` writes into"):
        load_start(tracked, "mlflow:@champion", "cpu")
