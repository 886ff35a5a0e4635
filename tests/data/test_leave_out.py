"""Episodes that params leave out neither train nor judge, and what cannot be left out is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_sites import Prepare
from so100_recordings import as_lerobot, motor_steps, write_v3

from zk0.data.manifest import read_manifests
from zk0.errors import DataError
from zk0.files import read_json
from zk0.params import ParamsError


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One owner's four episodes."""
    root = tmp_path_factory.mktemp("four")
    write_v3(root / "four", [as_lerobot(motor_steps(14, seed), "degrees") for seed in range(4)], cameras=["top"])
    return root


def taken(root: Path) -> set[int]:
    sites, _ = read_manifests(root)
    return {episode for one in sites for episode in (*one.train_episodes, *one.held_out_episodes)}


def test_what_is_left_out_neither_trains_nor_judges(run: Prepare, tmp_path: Path) -> None:
    run({"lab": "four"})
    whole, digest = taken(tmp_path), read_manifests(tmp_path)[0][0].digest

    run({"lab": "four"}, leave_out={"lab": [1]})

    (site,), _ = read_manifests(tmp_path)
    assert taken(tmp_path) == whole - {1}
    assert site.digest != digest
    (entry,) = read_json(tmp_path / "results/data.json")["sources"]
    assert entry["episodes"] == len(whole) - 1
    assert "without episodes 1, as params say" in (tmp_path / "results/data.md").read_text()


def test_what_is_left_out_is_dealt_to_no_site(run: Prepare, tmp_path: Path) -> None:
    run({"lab": "four"}, partition={"scheme": "equal", "sites": 2})
    assert taken(tmp_path) == {0, 1, 2, 3}

    with pytest.raises(DataError, match=r"data.leave_out leaves no training episode of \[0\]"):
        run({"lab": "four"}, leave_out={"lab": [0]}, partition={"scheme": "equal", "sites": 2})


@pytest.mark.parametrize(
    ("leave_out", "told"),
    [
        ({"lab": [7]}, r"data.leave_out of 'lab' names episode 7, but .* has episodes 0 to 3"),
        ({"lab": [0, 1, 3]}, r"data.leave_out leaves 1 of 4 episodes of 'lab' .* two are needed"),
    ],
)
def test_what_cannot_be_left_out(run: Prepare, leave_out: dict[str, list[int]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        run({"lab": "four"}, leave_out=leave_out)


@pytest.mark.parametrize(
    ("leave_out", "told"),
    [
        ({"lap": [0]}, "leave_out names 'lap', which is neither a site nor unseen; did you mean 'lab'?"),
        ({"lab": [-1]}, "leave_out 'lab' names episode -1; episodes are numbered from 0"),
        ({"lab": ["x"]}, "valid integer"),
    ],
)
def test_params_that_cannot_be(run: Prepare, leave_out: dict[str, list[int]], told: str) -> None:
    with pytest.raises(ParamsError) as refused:
        run({"lab": "four"}, leave_out=leave_out)

    assert told in str(refused.value)
