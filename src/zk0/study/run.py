"""A study from its name to its pieces: one by one, or side by side on a Ray cluster, each in one process all the same.

All machines of a cluster need the folder in which the study works: pieces, models and runs are kept there.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock

from zk0.console import console
from zk0.errors import StageError
from zk0.params.federation import EngineParams
from zk0.records.files import write
from zk0.study.project import prepared, with_absolute_paths
from zk0.study.results import StudyResult
from zk0.study.results_store import Piece
from zk0.study.runner import Job, Runner, Tell, one_by_one
from zk0.study.studies import Study
from zk0.study.tables import overview


def run(root: Path, study: Study, only: str | None = None) -> list[Piece]:
    """Run a study, or go on with it: pieces that are there are not made again.

    Args:
        root: Project folder.
        study: See :func:`zk0.study.studies.study_named`.
        only: Name of one arm (None = all).

    Raises:
        ValueError: No such arm; names the nearest.
        StageError: Data that is not fit, leakage, an arm that fails, or Ctrl-C; complete pieces are kept.
    """
    torch.set_num_threads(study.params.threads)
    here = with_absolute_paths(root, study.params)
    runner = Runner(root, prepared(root, here), replace(study, params=here))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pieces = runner.run(study.params, only, one_by_one if here.engine.name == "inprocess" else side_by_side)
    console.print(overview(runner.folder))
    if study.name == "comparison":
        revisions = {manifest.site: manifest.revision for manifest in runner.project.sites}
        write(root, StudyResult.read(runner.folder).summary(revisions))
    return pieces


def _make(runner: Runner, job: Job) -> Piece:
    """A piece that is there, or is made now."""
    folder = runner.project.root
    if not folder.is_dir():
        raise StageError(f"{folder} is not on every machine; a study needs a disk that all share")
    if job.arm.starts_from:  # several pieces may start from one model
        with FileLock(folder / f".start-{job.seed}.lock"):
            runner.model(runner.before(job))
    return runner.piece(job)


def side_by_side(runner: Runner, jobs: Sequence[Job], tell: Tell) -> Iterator[tuple[int, Piece]]:
    """Pieces with their numbers, each as it is there; those that start from another piece's model come after it.

    Args:
        runner: Of the study.
        jobs: The pieces.
        tell: Says what is going on.

    Raises:
        StageError: An arm fails, or its worker is lost; complete pieces are kept.
    """
    from zk0.federation.scale.cluster import cluster_for  # noqa: PLC0415 - Ray is an extra

    params = runner.study.params
    tell(f"{runner.study.name}: side by side")
    alone = replace(runner, study=replace(runner.study, params=params.model_copy(update={"engine": EngineParams()})))
    first = [number for number, job in enumerate(jobs) if not job.arm.starts_from]
    later = [number for number in range(len(jobs)) if number not in first]
    with cluster_for(params, max(len(first), len(later))) as cluster:
        for wave in (first, later):
            for index, piece in cluster.each(partial(_make, alone), [jobs[number] for number in wave]):
                yield wave[index], piece
