"""Probe a federated model in rooms that it has not seen: one factor at a time, at several sizes, and all together.

Every scene stands in a room of its own, the same one for every task, factor and size. So all pieces are paired, and
what one unlucky room does is one scene's luck.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import torch

from zk0.console import progress_bar
from zk0.data.sim.rooms import FACTORS, UNMET, Room
from zk0.digests import RESULTS_VERSION, key_of
from zk0.errors import StageError
from zk0.evaluation.rollouts import drive
from zk0.machine import machine
from zk0.params import Params
from zk0.params.federation import EngineParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.records.base import Machine
from zk0.sources import Source
from zk0.study.arms import federated
from zk0.study.nights_store import Successes
from zk0.study.probe_store import NAME, OWN, TOGETHER, ProbeFolder, ProbePiece, ProbeRecord, slug
from zk0.study.project import prepared, with_absolute_paths
from zk0.study.results_store import STUDIES
from zk0.study.runner import Job, Runner
from zk0.study.studies import study_named
from zk0.study.training import Trained

SIZES = (0.5, 1.0, 1.5)
SCENES = 40
FIRST_ROOM = UNMET + 100_000  # bases are scored in those before
_SIDE_BY_SIDE = 20  # rollouts


def run(root: Path, params: Params, quick: bool = False) -> ProbeFolder:
    """Probe the federated model of these params and their first training seed, or go on with it.

    Args:
        root: Project folder.
        params: The project's; their ``policy.base`` is where the federation begins.
        quick: At small sizes, under a name of its own.

    Raises:
        StageError: Sites without a simulated task, a federation that fails, or Ctrl-C; complete pieces are kept.
    """
    study = study_named("comparison", params, quick)
    engine, study = study.params, replace(study, params=study.params.model_copy(update={"engine": EngineParams()}))
    if real := [text for text in params.data.sites.values() if Source.parse(text).kind != "sim"]:
        raise StageError(f"rooms are simulated, so data.sites must be sim: sources; found {real[0]}")
    if not study.scenes:
        raise StageError("the probe needs closed-loop scenes; study.scenes is 0")
    torch.set_num_threads(study.params.threads)
    here = with_absolute_paths(root, study.params)
    folder = ProbeFolder(root / STUDIES / (f"{NAME}-quick" if quick else NAME))
    probe = Probe(folder, Runner(root, prepared(root, here), replace(study, params=here)))
    folder.describe(
        ProbeRecord(
            command=f"zk0 study {NAME}" + " --quick" * quick,
            quick=quick,
            base=params.policy.base,
            seed=probe.job.seed,
            scenes=(probe.scenes.start, len(probe.scenes)),
            rooms=FIRST_ROOM,
            tasks=tuple(probe.owners),
            files={factor: {s: probe.file(f, s) for f, s in points() if f == factor} for factor, _ in points()},
            params=study.params.model_dump(mode="json"),
            results_version=RESULTS_VERSION,
        )
    )
    try:
        probe.run(engine)
    except KeyboardInterrupt:
        raise StageError(f"stopped; complete pieces are kept in {folder.folder}; run it again to go on") from None
    return folder


def points() -> Iterator[tuple[str, float]]:
    """What is run: the own room, then every factor and all together at every size."""
    yield OWN, 0.0
    for factor in (*FACTORS, TOGETHER):
        for size in SIZES:
            yield factor, size


def rooms_of(factor: str, size: float, count: int) -> list[Room]:
    """The rooms of a point; none for the own room."""
    if factor == OWN:
        return []
    sizes = dict.fromkeys(FACTORS, size) if factor == TOGETHER else {factor: size}
    return [Room.of(number, sizes) for number in range(FIRST_ROOM, FIRST_ROOM + count)]


@dataclass
class Probe:
    """Makes the pieces of one model.

    Attributes:
        folder: Where they go.
        runner: Of the comparison, whose federated model is probed.
    """

    folder: ProbeFolder
    runner: Runner

    @property
    def job(self) -> Job:
        """The model."""
        return Job(federated(), self.runner.study.seeds[0])

    @property
    def scenes(self) -> range:
        """Final ones, by which nothing was chosen."""
        return self.runner.study.scenes[:SCENES]

    @cached_property
    def owners(self) -> dict[str, str]:
        """The owners' tasks, each with a site that has it."""
        return {manifest.source: manifest.site for manifest in self.runner.project.sites}

    @cached_property
    def _key(self) -> dict[str, object]:
        evaluation = self.runner.study.params.evaluation
        return {
            "model": self.runner.model_key(self.job),
            "scenes": [self.scenes.start, len(self.scenes)],
            "rooms": FIRST_ROOM,
            "max_steps": evaluation.max_steps,
            "actions_per_look": evaluation.actions_per_look,
            "step_factor": evaluation.step_factor,
            "tasks": list(self.owners),
        }

    def _digest(self, factor: str, size: float) -> str:
        return key_of({**self._key, "factor": factor, "size": size})

    def file(self, factor: str, size: float) -> str:
        """The file of a piece."""
        return f"seed{self.job.seed}-{slug(factor)}-{size:g}-{self._digest(factor, size)[:8]}.json"

    @cached_property
    def _trained(self) -> Trained:
        """Trained here, or by the comparison, whose project keeps it."""
        return self.runner.model(self.job)

    def _model_of(self, site: str) -> LoadedPolicy:
        """The model as a site has it: some tensors may stay with their owners."""
        warm = self.runner.project.policy(self.runner.study.params.model_copy(update={"seed": self.job.seed}))
        loaded = warm.fitted(self._trained.stats)
        warm.show(f"{key_of(self._key)}/{site}", self._trained.at(site))
        return loaded

    def run(self, engine: Params) -> None:
        """Make what is missing, on the engine of these params: one piece after the other, or side by side."""
        todo = [point for point in points() if self.folder.piece(self.file(*point)) is None]
        if not todo:
            return
        _ = self._trained  # shows its own progress
        with progress_bar() as bar:
            line = bar.add_task(NAME, total=len(todo))
            made = map(self.make, todo) if engine.engine.name == "inprocess" else self._side_by_side(engine, todo)
            for piece in made:
                self.folder.write(self.file(piece.factor, piece.size), piece)
                bar.update(line, advance=1, description=f"{NAME}: {piece.factor}, size {piece.size:g}")

    def _side_by_side(self, engine: Params, todo: list[tuple[str, float]]) -> Iterator[ProbePiece]:
        from zk0.federation.scale.cluster import cluster_for  # noqa: PLC0415 - Ray is an extra

        with cluster_for(engine, len(todo)) as cluster:
            for _, piece in cluster.each(self.make, todo):
                yield piece

    def make(self, point: tuple[str, float]) -> ProbePiece:
        """The piece of a factor and a size."""
        factor, size = point
        began = time.perf_counter()
        successes = self._drive(rooms_of(factor, size, len(self.scenes)))
        return ProbePiece(
            seed=self.job.seed,
            factor=factor,
            size=size,
            digest=self._digest(factor, size),
            successes=successes,
            seconds=time.perf_counter() - began,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=Machine.model_validate(machine()),
        )

    def _drive(self, rooms: list[Room]) -> Successes:
        """As an arm is driven, on the scenes of every owner's task."""
        settings, limits = self.runner.study.params.evaluation, self.runner.project.limits
        found = {}
        for source, site in self.owners.items():
            model = self._model_of(site)
            driven = drive(
                model, source, settings, limits, self.scenes, rooms=rooms, side_by_side=_SIDE_BY_SIDE, raw=False
            )
            found[source] = {rollout.seed: rollout.success for rollout in driven.limited}
        return found
