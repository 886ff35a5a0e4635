"""The study of nights: its weeks, one after the other or side by side on a Ray cluster, each in one process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from zk0.console import console
from zk0.digests import RESULTS_VERSION
from zk0.errors import StageError
from zk0.params import Params
from zk0.params.federation import EngineParams
from zk0.study.nights import Runner
from zk0.study.nights_store import NightRecord, NightsFolder, WeekRecord
from zk0.study.project import prepared, with_absolute_paths
from zk0.study.results_store import STUDIES
from zk0.study.studies import in_minutes
from zk0.study.week import SCENES, week_of

NAME = "nights"


def run(root: Path, params: Params, quick: bool = False, seeds: int | None = None) -> NightsFolder:
    """Run the weeks, or go on with them: nights that are made are not made again. On Ray weeks run side by side.

    Args:
        root: Project folder.
        params: The project's.
        quick: At small sizes, under a name of its own.
        seeds: Only so many training seeds, the first ones (None = all).

    Raises:
        StageError: Params that no week can be made of, a night that fails, or Ctrl-C; complete nights are kept.
    """
    chosen = in_minutes(params) if quick else params
    torch.set_num_threads(chosen.threads)
    folder = NightsFolder(root / STUDIES / (f"{NAME}-quick" if quick else NAME))
    own, alone = chosen.study, chosen.model_copy(update={"engine": EngineParams()})  # a week itself is one process
    here = with_absolute_paths(root, alone)
    weeks = [week_of(here, seed) for seed in own.training_seeds[:seeds]]
    scenes = range(own.final_seed, own.final_seed + min(own.scenes, SCENES))
    runners = [Runner(folder, week, prepared(root, week.params), scenes) for week in weeks]
    first = weeks[0]
    folder.describe(
        WeekRecord(
            command=f"zk0 study {NAME}" + " --quick" * quick + (f" --seeds {seeds}" if seeds else ""),
            quick=quick,
            scenes=(scenes.start, len(scenes)),
            nights=tuple(NightRecord(**asdict(night)) for night in first.nights),
            tasks={source: first.last_with(source) for source in first.tasks},
            files={runner.week.params.seed: runner.files for runner in runners},
            params=week_of(alone, own.training_seeds[0]).params.model_dump(mode="json"),
            results_version=RESULTS_VERSION,
        )
    )
    try:
        if chosen.engine.name == "inprocess":
            for runner in runners:
                runner.run()
        else:
            _side_by_side(chosen, runners)
    except KeyboardInterrupt:
        raise StageError(f"stopped; complete nights are kept in {folder.folder}; run it again to go on") from None
    return folder


def _side_by_side(params: Params, runners: list[Runner]) -> None:
    from zk0.federation.scale.cluster import cluster_for  # noqa: PLC0415 - Ray is an extra

    with cluster_for(params, len(runners)) as cluster:
        for number, _ in cluster.each(Runner.run, runners):
            console.print(f"the week of seed {runners[number].week.params.seed} is complete", markup=False)
