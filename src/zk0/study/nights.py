"""A week of the study of nights: nightly runs by the pipeline's own stages, in a project of their own.

Every night starts from the champion as ``federate/nightly`` does, and the gate decides in that project's MLflow. Beside
each stand a federation from the base and pooled training, on the night's data and with as many steps.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from zk0.console import console
from zk0.data.manifest import Manifest, read_manifests, unfit_sites
from zk0.digests import counted, key_of
from zk0.evaluation.rollouts import drive
from zk0.federation.attacks import Attack
from zk0.federation.site import forget
from zk0.files import read_json, write_json
from zk0.machine import machine
from zk0.models.nightly import nightly_start, nothing_new
from zk0.params import Params
from zk0.pipeline import evaluate, prepare, track
from zk0.pipeline import federate as federation
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.start import resolve_device
from zk0.records.base import Machine
from zk0.records.files import read, read_rounds
from zk0.records.results import Tracking
from zk0.records.run import Run
from zk0.sources import LOCK
from zk0.sources_lock import resolve_sources
from zk0.study.arms import POISONED_PARTITION, pooled
from zk0.study.nights_store import AT, Begun, NightPiece, NightsFolder, Successes
from zk0.study.project import StudyProject, refuse_leakage
from zk0.study.spoiled import spoiled
from zk0.study.training import Trained, federate, plan_of, train_in_one_place
from zk0.study.week import ATTACK, Night, Week
from zk0.tracking.promotion import read_promotion

_TOGETHER = 25  # rollouts


@dataclass
class Runner:
    """Makes the nights of a week.

    Attributes:
        folder: Where the study's results go.
        week: What happens when.
        world: All owners' recordings of the week.
        scenes: Final ones, which no decision looks at.
    """

    folder: NightsFolder
    week: Week
    world: StudyProject
    scenes: range
    _seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def root(self) -> Path:
        """The week's own project."""
        return self.world.root / "weeks" / self._digest

    @cached_property
    def _digest(self) -> str:
        params = counted(self.week.params, {"policy", "study", "benchmark", "tracking"})
        params["policy"] = counted(self.week.params.policy, {"base"})
        nights = [asdict(night) for night in self.week.nights]
        scenes = [self.scenes.start, len(self.scenes)]
        return key_of({"params": params, "base": self.world.base[1], "nights": nights, "scenes": scenes})

    @cached_property
    def _owners(self) -> dict[str, Manifest]:
        return {manifest.site: manifest for manifest in self.world.sites}

    @cached_property
    def _spoiled(self) -> Path:
        name = self.week.spoiled
        return spoiled(self.world.root / prepare.RECORDINGS / name, self.world.root / "spoiled" / name)

    @property
    def files(self) -> tuple[str, ...]:
        """The pieces' files, from night 0 on."""
        seed = self.week.params.seed
        return tuple(f"seed{seed}-night{n}-{self._digest[:8]}.json" for n in range(len(self.week.nights) + 1))

    def run(self) -> list[NightPiece]:
        """Make what is missing; a week whose project is gone begins anew, since a night goes on from the one before."""
        pieces = self.folder.made(self.files)
        if len(pieces) == len(self.files):
            return pieces
        at = read_json(self.root / AT)["night"] if (self.root / AT).is_file() else 0
        if not pieces or at not in (len(pieces) - 1, len(pieces)):
            shutil.rmtree(self.root, ignore_errors=True)
            pieces = [self._keep(self._first())]
        self._lay_out()
        for night in self.week.nights[len(pieces) - 1 :]:
            console.rule(f"seed {self.week.params.seed}, night {night.number}: {night.about}")
            pieces.append(self._keep(self._night(night)))
        return pieces

    def _keep(self, piece: NightPiece) -> NightPiece:
        self.folder.write(self.files[piece.night], piece)
        return piece

    def _lay_out(self) -> None:
        """The project: its recordings are the world's, and so is what is kept of them."""
        (self.root / "data").mkdir(parents=True, exist_ok=True)
        for name in (prepare.RECORDINGS, Path(".cache")):
            (self.world.root / name).mkdir(exist_ok=True)
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(self.world.root / name, target_is_directory=True)

    def _first(self) -> NightPiece:
        """Night 0: the base."""
        warm = self.world.policy(self.week.params)
        warm.show("base", warm.first)
        return self._piece(0, successes={"base": self._drive(warm.start)})

    def _night(self, night: Night) -> NightPiece:
        self._seconds = {}
        with self._timed("night"):
            params, begun = self._begun(night)
            lock = resolve_sources(params, self.root, begun["start"])
            if begun["new"] is None:
                begun["new"] = not nothing_new(self.root, params, lock)
                write_json(self.root / AT, begun)
            if begun["new"]:
                write_json(self.root / LOCK, lock)
                self._stages(night, params)
        if not begun["new"]:
            return self._piece(night.number, start=lock["policy"]["digest"])
        found, tracked = read(self.root, Run), read(self.root, Tracking)
        promotion = read_promotion(self.root, params.tracking.model, tracked.model_version)
        decision = promotion.decision
        gain = decision.comparison and decision.comparison.overall.get("site")
        return self._piece(
            night.number,
            run=found.run,
            start=lock["policy"]["digest"],
            episodes={name: len(site.train_episodes) for name, site in found.sites.items()},
            unfit=unfit_sites(self.root),
            outcome=promotion.outcome,
            version=tracked.model_version,
            against=decision.against,
            reasons=decision.reasons,
            gain=(gain.value, gain.lower_bound) if gain else None,
            bytes=sum(one.bytes_up + one.bytes_down for one in read_rounds(self.root)),
            successes=self._beside(night, params),
        )

    def _begun(self, night: Night) -> tuple[Params, Begun]:
        """Params, and what was noted as the night began: one that was stopped may have trained and promoted already."""
        params, note = self.week.params_of(night, self._owners, f"local:{self._spoiled}"), self.root / AT
        at: Begun = read_json(note) if note.is_file() else {"night": 0, "start": None, "new": None}
        if at["night"] != night.number:
            at = {"night": night.number, "start": nightly_start(self.root, params), "new": None}
        return params, at

    def _stages(self, night: Night, params: Params) -> None:
        """A nightly run, as the flow makes it, without benchmark and report."""
        liar = (POISONED_PARTITION, Attack(ATTACK)) if night.event == "lie" else None
        forget()  # what was opened of other nights
        with self._timed("prepare"):
            prepare.run(self.root, params, recorded=True)
        sites, unseen = read_manifests(self.root)
        refuse_leakage(self.week.trained_on(night, self._owners), [*sites, *unseen])
        with self._timed("federate"):
            federation.run(self.root, params, liar=liar)
        with self._timed("evaluate"):
            evaluate.run(self.root, params)
        with self._timed("track"):
            track.run(self.root, params, results=self.root)
        forget()

    def _beside(self, night: Night, params: Params) -> dict[str, Successes]:
        """The night's model on final scenes, and what else could have been made of its data."""
        best, device = self.root / "checkpoints" / "best", resolve_device(params.policy.device)
        with self._timed("judge"):
            found = {"tonight": self._drive(load_checkpoint(best, device))}
        project = replace(StudyProject.open(self.root, params), base=self.world.base)
        folder = self.root / "from-base"

        def federated() -> Trained:
            return federate(project, params, folder, ATTACK if night.event == "lie" else None)

        def in_one_place() -> Trained:
            return train_in_one_place(project, params, plan_of(pooled("steps"), params, project))

        if read(self.root, Run).base.digest == self.world.base[1]:  # there is no champion yet: it is the same model
            found["from base"] = found["tonight"]
        else:
            found["from base"] = self._trained("from base", federated, project, params)
        found["pooled"] = self._trained("pooled", in_one_place, project, params)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _trained(self, name: str, train: Callable[[], Trained], project: StudyProject, params: Params) -> Successes:
        with self._timed(name):
            trained = train()
        with self._timed("judge"):
            warm = project.policy(params)
            loaded = warm.fitted(trained.stats)
            warm.show(name, trained.tensors)
            found = self._drive(loaded)
        project.forget()
        return found

    def _drive(self, loaded: LoadedPolicy) -> Successes:
        """A model on the final scenes of every owner's task, as an arm is driven."""
        settings, limits = self.week.params.evaluation, self.world.limits
        found = {}
        for source in self.week.tasks:
            driven = drive(loaded, source, settings, limits, self.scenes, side_by_side=_TOGETHER, raw=False)
            found[source] = {rollout.seed: rollout.success for rollout in driven.limited}
        return found

    def _piece(self, night: int, **told: object) -> NightPiece:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"seed": self.week.params.seed, "night": night, "digest": self._digest, "seconds": self._seconds}
        this = Machine.model_validate(machine())
        return NightPiece.model_validate({**about, **told, "created": created, "machine": this})

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - began
