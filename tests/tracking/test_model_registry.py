"""The registered model: loading it, predicting with it, promoting it, going back from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from zk0.digests import digest_folder
from zk0.models import versions
from zk0.params import PromotionParams, load_params
from zk0.policy.checkpoint import load_checkpoint
from zk0.tracking import TrackingError
from zk0.tracking.experiments import Kept
from zk0.tracking.lineage import describe_version, list_runs
from zk0.tracking.project import FlowRunInfo, track
from zk0.tracking.promotion import promote
from zk0.tracking.registry import champion

REPO = Path(__file__).resolve().parents[2]
PARAMS = PromotionParams()


@pytest.fixture
def observation() -> dict[str, Any]:
    draws = np.random.default_rng(0)
    return {
        "observation.state": draws.normal(size=6),
        "observation.images.top": draws.integers(0, 256, (96, 96, 3), np.uint8),
        "observation.images.wrist": draws.integers(0, 256, (120, 160, 3), np.uint8),
        "task": "touch the red cube",
    }


def test_a_version_answers_as_its_checkpoint_did_when_that_is_gone(
    tracked: Path, checkpoint: Path, observation: dict[str, Any]
) -> None:
    loaded = load_checkpoint(checkpoint)
    batch: dict[str, Any] = {
        "observation.state": torch.tensor(observation["observation.state"], dtype=torch.float32)[None],
        "task": [observation["task"]],
    }
    for camera in loaded.cameras:
        batch[camera] = torch.tensor(observation[camera]).permute(2, 0, 1)[None] / 255.0
    noise = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(7))
    expected = loaded.postprocess(loaded.policy.predict_action_chunk(loaded.preprocess(batch), noise=noise))[0].numpy()
    shutil.rmtree(tracked / "checkpoints")

    model = mlflow.pyfunc.load_model("models:/zk0-smolvla/1")

    chunk = model.predict(observation, params={"seed": 7})
    assert (chunk.shape, chunk.dtype) == ((8, 6), np.float32)
    np.testing.assert_allclose(chunk, expected, rtol=1e-5)
    nested = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in observation.items()}
    other = model.predict(pd.DataFrame([nested]))
    np.testing.assert_array_equal(model.predict(observation), other)
    assert not np.array_equal(other, chunk)
    with pytest.raises(ValueError, match="lacks 'task'"):
        model.predict({key: value for key, value in observation.items() if key != "task"})


def test_without_champion_there_is_none(tracked: Path, tmp_path: Path) -> None:
    assert champion(tracked, "zk0-smolvla") is None
    assert champion(tracked, "another-model") is None
    assert champion(tmp_path / "nowhere", "zk0-smolvla") is None


def test_a_promoted_version_is_champion_and_its_checkpoint_is_found(tracked: Path, files: Any) -> None:
    digest = digest_folder(tracked / "checkpoints/best")
    shutil.rmtree(tracked / "checkpoints")

    assert promote(tracked, "zk0-smolvla", 1, PARAMS, force=True).before is None

    folder = champion(tracked, "zk0-smolvla")
    assert folder is not None
    assert digest_folder(folder) == digest


def test_promoting_what_is_not_there_says_what_is(tracked: Path) -> None:
    with pytest.raises(TrackingError, match="'zk0-smolvla' has no version 7; there are: 1"):
        promote(tracked, "zk0-smolvla", 7, PARAMS)


def test_a_champion_whose_files_are_gone_is_an_error(tracked: Path) -> None:
    promote(tracked, "zk0-smolvla", 1, PARAMS, force=True)
    shutil.rmtree(tracked / "mlruns/1/models")

    with pytest.raises(TrackingError, match="'zk0-smolvla', version 1, are gone from mlruns/1/models/"):
        champion(tracked, "zk0-smolvla")


def test_a_version_from_elsewhere_is_named_with_its_source(tracked: Path) -> None:
    store = mlflow.MlflowClient()
    store.create_model_version("zk0-smolvla", str(tracked / "checkpoints/best"))

    with pytest.raises(TrackingError, match=r"version 2, is not one that `zk0 track` registered: its source is /"):
        promote(tracked, "zk0-smolvla", 2, PARAMS, force=True)


def test_files_that_are_gone_are_copied_again(tracked: Path) -> None:
    promote(tracked, "zk0-smolvla", 1, PARAMS, force=True)
    shutil.rmtree(tracked / "mlruns/1/models")

    result = track(tracked, "zk0", "zk0-smolvla")

    assert result.model_version == 1
    folder = champion(tracked, "zk0-smolvla")
    assert folder is not None
    assert digest_folder(folder) == digest_folder(tracked / "checkpoints/best")


def test_a_version_leads_back_to_what_made_it(tracked: Path) -> None:
    track(tracked, "zk0", "zk0-smolvla", FlowRunInfo("flow-1"), Kept("nightly-1"))
    digest = digest_folder(tracked / "checkpoints/best")

    found = describe_version(tracked, "zk0-smolvla", 1)

    assert (found["run"], found["round"], found["digest"]) == ("0123456789abcdef", 2, digest)
    assert (found["git_revision"], found["git_dirty"], found["flow_run"]) == ("4f2a91c", False, "flow-1")
    assert found["aliases"] == ["challenger"]
    assert found["commands"] == []
    assert found["cannot"] == [
        "the experiment nightly-1 is not in this clone: `dvc exp pull origin nightly-1`, if it was pushed"
    ]
    assert found["params"]["federation.strategy"] == "fedavg"
    roles = {name: (given["digest"], given["role"]) for name, given in found["datasets"].items()}
    assert roles == {
        "red-cube": ("red-cube-digest", "training"),
        "green-ball": ("green-ball-digest", "training"),
        "purple-cylinder": ("purple-cylinder-digest", "evaluation"),
    }
    assert digest_folder(tracked / found["checkpoint"]) == digest


def test_a_run_that_was_not_kept_says_so(tracked: Path) -> None:
    found = describe_version(tracked, "zk0-smolvla", 1)

    assert found["commands"] == found["here"] == []
    assert "it was not kept as a DVC experiment" in found["cannot"][0]


def test_runs_are_listed_newest_first(tracked: Path, files: Any) -> None:
    files.run(tracked, started="2026-03-02T10:00:00+00:00", ended="2026-03-02T10:00:30+00:00")
    files.later(tracked)
    track(tracked, "zk0", "zk0-smolvla")

    rows = list_runs(tracked, "zk0")

    assert [row["versions"] for row in rows] == [["zk0-smolvla/2 (challenger)"], ["zk0-smolvla/1"]]
    assert [row["success_seen"] for row in rows] == [0.75, None]
    assert (rows[0]["sites"], rows[0]["rounds"], rows[0]["strategy"]) == (2, 3, "fedavg")
    assert (rows[0]["held_out_loss"], rows[0]["wall_s"]) == (0.4, 30.0)
    assert (rows[0]["codec"], rows[0]["bytes_up"], rows[0]["bytes_down"]) == ("fp32", 6000.0, 12000.0)
    assert (rows[0]["base_success_seen"], rows[0]["safe"], rows[0]["epsilon"]) == (0.0, 1.0, None)
    assert [row["refused"] for row in rows] == [None, None]


def test_without_a_store_there_are_no_runs_and_no_versions(tmp_path: Path) -> None:
    assert list_runs(tmp_path, "zk0") == []
    with pytest.raises(TrackingError, match=r"mlflow.db is missing; `zk0 track` makes it"):
        describe_version(tmp_path, "zk0-smolvla", 1)


def test_the_page_fits_a_terminal(
    tracked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    versions.show(tracked, load_params(REPO / "params.yaml"), 1, as_json=False)

    page = capsys.readouterr().out
    assert "zk0-smolvla version 1 (challenger)" in page
    assert "red-cube-dig" in page and "sim:touch-red-cube" in page
    assert "Not brought back: this run's data and params" in page
    assert len(page.splitlines()) < 40
