"""A study's pieces made side by side on Ray: the same as one by one."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from zk0.params import Params, with_changes
from zk0.study.arms import alone, base, federated, personalised
from zk0.study.project import StudyProject
from zk0.study.results_store import Piece
from zk0.study.run import side_by_side
from zk0.study.runner import Runner
from zk0.study.studies import Study

pytest.importorskip("ray")
from zk0.federation.scale.cluster import MOST_LOST, EngineError, cluster_for

pytestmark = pytest.mark.release
TIMES = {"train_s", "evaluate_s", "created"}


def figures(pieces: list[Piece]) -> list[dict[str, Any]]:
    return [piece.model_dump(exclude=TIMES) for piece in pieces]


def test_pieces_are_those_of_one_process_and_are_not_made_twice(
    tmp_path: Path, project: StudyProject, comparison_study: Study, study_params: Params
) -> None:
    arms = (base(), alone("red"), federated(), personalised("red"), personalised("disc"))
    study = replace(comparison_study, arms=arms, seeds=(1,), scenes=range(200_000, 200_002))
    params = with_changes(study_params, {"engine.name": "ray", "engine.workers": 2})
    spread = Runner(tmp_path / "spread", project, replace(study, params=params))

    made = spread.run(params, made=side_by_side)

    assert [piece.arm for piece in made] == [arm.name for arm in arms]
    single = Runner(tmp_path / "single", project, study)
    assert figures(single.run(study_params)) == figures(made)
    assert single.folder.record().model_dump() == spread.folder.record().model_dump()
    before = {path: path.stat().st_mtime_ns for path in (spread.folder.folder / "pieces").iterdir()}
    Runner(tmp_path / "spread", project, study).run(study_params)
    assert {path: path.stat().st_mtime_ns for path in (spread.folder.folder / "pieces").iterdir()} == before


def test_a_lost_worker_is_replaced(tmp_path: Path, study_params: Params) -> None:
    params = with_changes(study_params, {"engine.name": "ray", "engine.workers": 2, "threads": 1})

    def squared(dies: int, number: int) -> int:
        """A piece; two ends its worker as a kill does, the first so many times."""
        tries = tmp_path / str(number)
        before = tries.stat().st_size if tries.exists() else 0
        tries.write_bytes(bytes(before + 1))
        if number == 2 and before < dies:
            os._exit(1)
        return number * number

    with cluster_for(params, 4) as cluster:
        made = dict(cluster.each(partial(squared, 1), range(4)))
        with pytest.raises(EngineError, match=f"{MOST_LOST} workers were lost on the same piece"):
            list(cluster.each(partial(squared, 100), range(2, 4)))

    assert made == {0: 0, 1: 1, 2: 4, 3: 9}
    assert (tmp_path / "2").stat().st_size == 2 + MOST_LOST
