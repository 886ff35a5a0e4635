"""The stand-in answers as a site does, and the measurements of the server at scale measure what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.server_scale import crowd, crowd_params, deployment, lay_out, table
from benchmarks.standin import Standin
from zk0.federation.discovery import meet
from zk0.federation.inprocess import LocalGrid
from zk0.federation.rounds import run_rounds
from zk0.federation.server import Server
from zk0.federation.state import RoundState, StateFolder
from zk0.policy.trainable import digest_tensors
from zk0.records.files import read_lines
from zk0.records.journal import Journal
from zk0.records.paths import EVENTS, ROUNDS

START = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4)}
SHAPES = {"a": [2, 3], "b": [4]}


def federated(folder: Path, standin: Standin, **federation: Any) -> tuple[RoundState, list[dict[str, Any]]]:
    params = crowd_params(rounds=3, **federation)
    grid = LocalGrid(6, standin.answer)
    server = Server(grid, params, "test", ("random:nano", ""), Journal(folder / "events.jsonl"), folder / "waiting")
    meet(server)
    state = run_rounds(server, StateFolder(folder / "state"), dict(START), lambda *_: None)
    return state, read_lines(folder / "events.jsonl")


@pytest.mark.parametrize(
    "settings", [{}, {"downlink": "int8", "fraction": 0.5, "judges": 0.5}, {"strategy": "fedadam"}]
)
def test_a_server_takes_what_the_stand_in_says_and_gets_the_same_again(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    one, events = federated(tmp_path / "one", Standin(SHAPES, digest_tensors(START)), **settings)
    two, _ = federated(tmp_path / "two", Standin(SHAPES, digest_tensors(START)), **settings)

    assert one.digest == two.digest != digest_tensors(START)
    assert all(row.left_out == {} and row.bounded == {} for row in one.rounds)
    losses = [row.held_out_loss for row in one.rounds]
    assert losses == sorted(losses, reverse=True)
    assert {event["event"] for event in events} == {"round-start", "train", "aggregate", "evaluate", "save"}


def test_it_asks_for_a_model_that_it_does_not_know(tmp_path: Path) -> None:
    state, _ = federated(tmp_path, Standin(SHAPES, "another"))

    assert state.round == 3 and all(row.left_out == {} for row in state.rounds)


def test_it_needs_no_torch() -> None:
    words = "import sys, benchmarks.standin, benchmarks.nodes; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lay_out(tmp_path, crowd_params(rounds=2, fraction=0.5, judges=0.5), 6)
    return tmp_path


@pytest.mark.release
def test_a_crowd_on_ray_is_measured(root: Path) -> None:
    pytest.importorskip("ray")

    samples = crowd(root=str(root), workers=1)

    assert [sample["round"] for sample in samples] == [1, 2]
    before = (root / ROUNDS).read_bytes().splitlines(keepends=True)[:2]  # the last row follows when its state is saved
    assert samples[-1]["disk"]["rounds"] == sum(map(len, before))
    assert samples[-1]["memory"]["server"] > 1e8 and samples[-1]["files"]["server"] > 10
    assert [len(row["sites"]) <= 6 for row in read_lines(root / ROUNDS)] == [True] * 3
    assert "| round | s | server, MB | server, files | events, MB on disk |" in table(samples)


@pytest.mark.release
def test_nodes_on_one_superlink_are_measured(root: Path) -> None:
    samples = deployment(root=str(root), count=2)

    assert [sample["round"] for sample in samples] == [1, 2]
    assert samples[-1]["memory"].keys() == {"superlink", "gateway", "ServerApp"}
    assert samples[-1]["disk"]["messages"] > 0
    assert not [event for event in read_lines(root / EVENTS) if event["event"] in ("site-left-out", "site-bounded")]
