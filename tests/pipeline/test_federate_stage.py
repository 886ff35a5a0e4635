"""The stage `federate` trains anew once the code behind it has changed, though its state is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from zk0.files import read_json, write_json
from zk0.params import Params, PrivacyParams
from zk0.pipeline import federate


@pytest.fixture
def project(prepared: Path, small_params: Params, tmp_path: Path) -> Path:
    """A prepared project of its own, with the digests that `zk0 validate` writes."""
    import shutil

    import yaml

    root = tmp_path / "project"
    shutil.copytree(prepared, root)
    (root / "params.yaml").write_text(yaml.safe_dump(small_params.model_dump(mode="json")))
    write_json(root / "code.lock.json", {"code": {"federate": {"training": "first"}}})
    return root


def test_other_code_trains_anew_and_the_same_code_does_not(project: Path, small_params: Params) -> None:
    federate.run(project, small_params)
    first = read_json(project / "results/federation/run.json")

    federate.run(project, small_params)
    assert read_json(project / "results/federation/run.json") == first  # no other run, which MLflow would keep as one

    write_json(project / "code.lock.json", {"code": {"federate": {"training": "second"}}})
    federate.run(project, small_params)

    again = read_json(project / "results/federation/run.json")
    assert again["resumed_at_rounds"] == []
    assert again["checkpoints"]["best"]["digest"] == first["checkpoints"]["best"]["digest"]


def test_a_stopped_and_a_private_run_go_on_with_other_code(tmp_path: Path, small_params: Params) -> None:
    for name, note in (("stopped", None), ("complete", "other"), ("private", "other")):
        (tmp_path / name).mkdir()
        if note:
            (tmp_path / name / "code.json").write_text(note)
    (tmp_path / "private" / "privacy.json").write_text("{}")
    private = small_params.model_copy(update={"privacy": PrivacyParams(mode="central")})

    federate._set_aside_other(tmp_path, private, "this")
    federate._set_aside_other(tmp_path, small_params, None)
    assert (tmp_path / "complete").exists()

    federate._set_aside_other(tmp_path, small_params, "this")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private", "stopped"]
