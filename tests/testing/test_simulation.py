"""What a simulation must give: judged on rounds that a reader can check by eye, and on a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zk0.params import Params, with_changes
from zk0.pipeline import simulate
from zk0.pipeline.simulate import judge_rounds, rounds_of, simulation_params
from zk0.records.run import Round
from zk0.testing.records import SIMULATION_RESULT, Simulation, TestingError, read_record

ROOT = Path(__file__).resolve().parents[2]


def _row(number: int, loss: float, **sites: dict[str, Any]) -> dict[str, Any]:
    both = {name: {"held_out_loss": loss, "train_loss": loss if number else None} for name in ("a", "b")} | sites
    return {"round": number, "held_out_loss": loss, "train_loss": loss if number else None, "sites": both}


def _failed(*rows: dict[str, Any], asked: int = 2) -> list[str]:
    return [
        finding.name
        for finding in judge_rounds(rounds_of([Round.model_validate(row) for row in rows]), ("a", "b"), asked)
        if not finding.passed
    ]


def test_a_sound_run_passes() -> None:
    assert _failed(_row(0, 3.0), _row(1, 2.0), _row(2, 1.0)) == []


def test_what_is_wrong_is_found() -> None:
    first, second, third = _row(0, 3.0), _row(1, 2.0), _row(2, 1.0)

    assert _failed(first, second) == ["all rounds were run", "training loss fell"]
    assert _failed() == [
        "all rounds were run",
        "every site answered in every round",
        "held-out loss fell",
        "training loss fell",
    ]
    assert _failed(first, second, _row(2, 3.5)) == ["held-out loss fell", "training loss fell"]
    absent = "every site answered in every round"
    assert _failed(first, second, _row(2, 1.0, b={"held_out_loss": 1.0, "train_loss": None})) == [absent]
    assert _failed(first, second, third | {"left_out": {"a": "late"}}) == [absent]
    assert _failed(first, second, _row(2, 1.0, a={"held_out_loss": float("nan"), "train_loss": 1.0})) == [absent]


def test_params_are_the_demo_in_small() -> None:
    params = simulation_params(ROOT)

    assert len(params.data.sites) > 2 and params.federation.rounds > 1
    assert Path(params.policy.base) == ROOT / "models/nano-base"  # from any folder
    assert params.federation.min_replies == 1.0


def test_real_run_is_judged(small_params: Params, tmp_path: Path) -> None:
    folder = tmp_path / "simulation"
    longer = with_changes(small_params, {"training.local_steps": 10, "training.learning_rate": 2e-3})
    found = simulate.run(ROOT, folder, longer)

    assert found == read_record(folder / SIMULATION_RESULT, Simulation)
    assert found.sites == ("cubes-0", "cubes-1") and [one.round for one in found.rounds] == [0, 1, 2]
    assert {f.name for f in found.findings if "checkpoint loads" in f.name and f.passed} == {
        "the best checkpoint loads",
        "the last checkpoint loads",
    }
    # A checkpoint that is spoilt afterwards does not pass for its round's model.
    run = folder / "results/federation/run.json"
    told = json.loads(run.read_text())
    told["checkpoints"]["best"]["round"] = 0
    run.write_text(json.dumps(told))
    assert simulate._loads(folder, "best").found == "other tensors than those of round 0"
    (folder / "checkpoints/last/model.safetensors").unlink()
    assert "model.safetensors not found" in simulate._loads(folder, "last").found

    # The same again, without learning: an earlier run's rounds do not help it.
    still = with_changes(longer, {"training.learning_rate": 1e-30, "training.final_learning_rate": 1e-30})
    with pytest.raises(TestingError, match=r"held-out loss fell: .*, expected the last below the starting model's"):
        simulate.run(ROOT, folder, still)


def test_another_folder_is_left_alone(small_params: Params, tmp_path: Path) -> None:
    from zk0.errors import StageError
    from zk0.pipeline import simulate

    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StageError, match="holds something that is no simulation"):
        simulate.run(ROOT, tmp_path, small_params)
    assert (tmp_path / "mine.txt").read_text() == "mine"
