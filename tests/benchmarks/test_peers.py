"""Ours and the peers for real, at the smallest size: that each does what its row says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from transformers import AutoProcessor

from benchmarks.federations import TrainableOnly
from benchmarks.federations import server_peak as own_peak
from benchmarks.peers.flower import arrays_of
from benchmarks.peers.flower import server_peak as flower_peak
from benchmarks.pieces import isolated
from benchmarks.sizes import shapes_of
from zk0.federation.inprocess import LocalGrid
from zk0.measuring.rows import BenchmarkError

VALUES = 200_000


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_measurement_that_fails_tells_its_last_lines(_elsewhere: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)copy_seconds failed.*copy_seconds.log.*nonsense"):
        isolated("benchmarks.round_overhead:copy_seconds", nonsense=1)


def test_a_copy_is_timed(_elsewhere: Path) -> None:
    seconds = isolated("benchmarks.round_overhead:copy_seconds", total=3_000_000, repeats=3, threads=1)
    assert len(seconds) == 3
    assert all(value > 0 for value in seconds)


def test_grid_hands_out_one_reply_at_a_time() -> None:
    made: list[int] = []

    def answer(message: Message) -> Message:
        made.append(message.metadata.dst_node_id)
        return Message(RecordDict({"metrics": MetricRecord({"n": 1})}), reply_to=message)

    grid = LocalGrid(3, answer)
    replies = grid.send_and_receive([Message(RecordDict(), node, "train") for node in grid.get_node_ids()])

    next(iter(replies))
    assert made == [1]


def test_both_servers_average_all_replies(_elsewhere: Path) -> None:
    """Each runs its rounds on real messages; an error among them would end it."""
    ours = own_peak(sites=3, values=VALUES, rounds=2, strategy="fedadam", threads=1)
    peer = flower_peak(sites=3, values=VALUES, rounds=2)
    for result in (ours, peer):
        assert result["peak_bytes"] >= result["baseline_bytes"] > 0
        assert result["trainable_bytes"] == VALUES * 4


def test_peers_model_has_the_same_tensors_as_ours() -> None:
    record: ArrayRecord = arrays_of(VALUES)
    module = TrainableOnly(shapes_of(VALUES), ("observation.images.top",))
    theirs = [array.numpy().shape for array in record.values()]
    assert theirs == [tuple(p.shape) for p in module.parameters()]
    assert all(array.numpy().dtype == np.float32 for array in record.values())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.release)])
def test_rounds_without_training_are_real_rounds(
    _elsewhere: Path, prepared: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the workers' is set
    from benchmarks.federations import rounds_without_training
    from benchmarks.projects import use_params
    from zk0.params import load_params, parse_params

    params = parse_params(
        {
            "policy": {"base": "random:nano"},
            "data": {"sites": {"cubes": "local:cubes"}, "partition": {"scheme": "equal", "sites": 2}},
            "features": {"cache": "off"},
            "federation": {"rounds": 2, "uplink": "int8"},
        }
    )
    root = _elsewhere / "project"
    import shutil

    shutil.copytree(prepared, root)
    use_params(root, params)
    assert load_params(root / "params.yaml") == params

    shapes = {name: list(shape) for name, shape in shapes_of(VALUES).items()}
    result = rounds_without_training(root=str(root), shapes=shapes, saving=True, threads=1, workers=workers)

    assert len(result["round_s"]) == 2
    assert len(result["save_s"]) == 2
    values = sum(int(np.prod(shape)) for shape in shapes.values())
    assert values < result["bytes_site"]["up"] < 1.1 * values, "int8: a byte a value and the blocks' scales"
    assert result["bytes_site"]["down"] >= 4 * values, "the changed model goes down in fp32"


def test_a_random_policys_settings_still_build_one_when_its_process_has_ended(_elsewhere: Path) -> None:
    (_elsewhere / "params.yaml").write_text(
        "policy: {base: 'random:nano'}\ndata: {sites: {own: sim:push-red-cube-left}}\n"
    )

    settings = isolated("benchmarks.own_training:smolvla_settings", root=".")

    assert settings["num_vlm_layers"] == 4
    assert AutoProcessor.from_pretrained(settings["vlm_model_name"]).tokenizer.vocab_size > 0
