"""Run a study piece by piece: train an arm with a training seed, judge it, keep the piece, go on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from zk0.console import console, progress_bar
from zk0.data.manifest import Manifest
from zk0.digests import RESULTS_VERSION, counted, key_of
from zk0.errors import StageError
from zk0.federation.run import config_digest
from zk0.machine import machine
from zk0.machine.packages import versions
from zk0.params import Params
from zk0.records.base import Machine
from zk0.study.arms import FEDERATED, Arm, arm_named, federated
from zk0.study.judging import judge
from zk0.study.project import StudyProject, first_episodes, refuse_leakage
from zk0.study.results_store import RECORD, STUDIES, ArmRecord, Piece, StudyFolder, StudyRecord, TaskResult
from zk0.study.studies import Study
from zk0.study.training import Cost, Trained, federate, plan_of, train_in_one_place

_MODELS = "models"
_RUNS = "runs"


@dataclass(frozen=True)
class Job:
    """One piece to make.

    Attributes:
        arm: How.
        seed: Training seed; it decides batches, flow-matching noise, and adapters' frozen half, and nothing else.
    """

    arm: Arm
    seed: int


def jobs_of(study: Study, only: str | None = None) -> list[Job]:
    """The pieces of a study, one training seed after the other, so that what is there first is a whole comparison.

    Args:
        study: The study.
        only: Name of one arm (None = all).

    Raises:
        ValueError: There is no such arm; names the nearest.
    """
    arms = study.arms if only is None else (arm_named(study.arms, only),)
    return [
        Job(arm, seed if arm.seeded else 0)
        for seed in study.seeds
        for arm in arms
        if arm.seeded or seed == study.seeds[0]
    ]


Tell = Callable[[str], None]
Made = Callable[["Runner", Sequence[Job], Tell], Iterator[tuple[int, Piece]]]


def one_by_one(runner: Runner, jobs: Sequence[Job], tell: Tell) -> Iterator[tuple[int, Piece]]:
    """Pieces with their numbers, each as it is there."""
    for number, job in enumerate(jobs):
        tell(f"{runner.study.name}: {job.arm.name}, seed {job.seed}")
        yield number, runner.piece(job)


@dataclass
class Runner:
    """Makes the pieces of a study.

    Attributes:
        root: Folder of the project to which the results belong.
        project: Prepared for the study's params.
        study: What to run.
    """

    root: Path
    project: StudyProject
    study: Study

    def __post_init__(self) -> None:
        if any(arm.kind == "newcomer" for arm in self.study.arms):
            self.project = self.project.with_newcomers()

    @property
    def folder(self) -> StudyFolder:
        """Where the study's results go."""
        return StudyFolder(self.root / STUDIES / self.study.name)

    def run(self, params_as_written: Params, only: str | None = None, made: Made = one_by_one) -> list[Piece]:
        """Make what is missing, and say in ``study.json`` what belongs together.

        Args:
            params_as_written: The study's params before paths were made absolute.
            only: Name of one arm (None = all).
            made: Makes pieces.

        Returns:
            All pieces asked for, made now or before.

        Raises:
            StageError: Leakage, an arm that fails, or Ctrl-C; what is complete is kept.
        """
        jobs = jobs_of(self.study, only)
        if (before := self.folder.describe(self._record(params_as_written))) is not None:
            console.print(
                f"the {sum(len(arm.files) for arm in before.arms)} pieces that {RECORD} named until now are of results "
                f"version {before.results_version}, and this is {RESULTS_VERSION}: they stay where they are and no "
                "longer count",
                markup=False,
            )
        pieces: dict[int, Piece] = {}
        with progress_bar() as bar:
            line = bar.add_task(self.study.name, total=len(jobs))
            try:
                for number, piece in made(self, jobs, lambda told: bar.update(line, description=told)):
                    pieces[number] = piece
                    bar.advance(line)
            except KeyboardInterrupt:
                raise StageError(
                    f"stopped; {len(pieces)} of {len(jobs)} pieces are kept in {self.folder.folder}, and "
                    f"`{self.study.command}` goes on from there"
                ) from None
        return [pieces[number] for number in range(len(jobs))]

    def piece(self, job: Job) -> Piece:
        """A piece that is there, or is made now."""
        file = self._file(job)
        if (found := self.folder.piece(file) or self.folder.adopt(file)) is not None:
            return found
        refuse_leakage(self._trained_on(job.arm), self._judged(job.arm))
        trained = self.model(job)
        piece = self._judge(job, trained)
        self.folder.write(file, piece)
        if job.arm.name != FEDERATED:  # the one from which others start
            shutil.rmtree(self._model_folder(job), ignore_errors=True)
        return piece

    def model(self, job: Job) -> Trained:
        """The arm's model: loaded where it is kept, trained otherwise, and kept until it is judged."""
        folder = self._model_folder(job)
        trained = Trained.load(folder)
        if trained is None:
            try:
                trained = self._train(job)
            except FloatingPointError as error:
                raise StageError(f"arm '{job.arm.name}', training seed {job.seed}: {error}") from error
            trained.save(folder)
        return trained

    def _train(self, job: Job) -> Trained:
        params = self._params(job)
        if job.arm.kind == "base":
            return Trained(self.project.policy(params).first, None, Cost())
        if job.arm.kind == "federated":
            folder = self.project.root / _RUNS / self._stem(job, self.model_key(job))
            trained = federate(self.project, params, folder, job.arm.attack)
            shutil.rmtree(folder)
            return trained
        start = self.model(self.before(job)) if job.arm.starts_from else None
        return train_in_one_place(self.project, params, plan_of(job.arm, params, self.project), start)

    def _judge(self, job: Job, trained: Trained) -> Piece:
        began = time.perf_counter()
        warm = self.project.policy(self._params(job))
        loaded = warm.fitted(trained.stats)
        stem, judged = self._stem(job, self.model_key(job)), self._judged(job.arm)
        shared = [manifest for manifest in judged if manifest.site not in trained.own]
        tasks: dict[str, TaskResult] = {}
        for group in (*([one] for one in judged if one not in shared), shared):
            site = group[0].site if group else ""
            warm.show(f"{stem}/{site}", trained.at(site))
            tasks |= judge(self.project, loaded, self.study.params, self.study.scenes, group)
        cost = asdict(trained.cost)
        return Piece(
            arm=job.arm.name,
            seed=job.seed,
            digest=key_of(self._piece_key(job)),
            train_s=cost.pop("seconds"),
            evaluate_s=time.perf_counter() - began,
            trainable=sum(tensor.numel() for tensor in trained.tensors.values()),
            episodes=sum(len(episodes) for _, episodes in self._trained_on(job.arm)),
            tasks=tasks,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=Machine.model_validate(machine()),
            versions={name: str(version) for name, version in versions().items()},
            **cost,
        )

    def _params(self, job: Job) -> Params:
        return job.arm.params(self.study.params).model_copy(update={"seed": job.seed})

    def before(self, job: Job) -> Job:
        """What an arm's model is trained further from."""
        return Job(federated(), job.seed)

    def _judged(self, arm: Arm) -> list[Manifest]:
        if arm.own_task_only and arm.site:
            return [self.project.manifest(arm.site)]
        return self.project.manifests

    def _trained_on(self, arm: Arm) -> list[tuple[Manifest, Sequence[int]]]:
        """Whose episodes, and which; of all sites where the model began with a federation."""
        if arm.kind == "base":
            return []
        own = [self.project.manifest(str(arm.site))] if arm.kind in ("alone", "newcomer") else []
        others = self.project.sites if not own or arm.starts_from else []
        return [
            *((manifest, first_episodes(manifest, arm.share, arm.episodes)) for manifest in own),
            *((manifest, first_episodes(manifest, arm.share)) for manifest in others),
        ]

    def model_key(self, job: Job) -> dict[str, object]:
        """All that decides an arm's model."""
        params = self._params(job)
        if job.arm.kind == "base":
            return {"threads": params.threads, "base": self.project.base[1]}
        more: dict[str, object] = {}
        if params.privacy.mode != "off":  # its budget decides when a federation ends
            more["privacy"] = counted(params.privacy)
        if job.arm.starts_from:
            more["start"] = self.model_key(self.before(job))
        if job.arm.kind == "personalised":
            more["personal_steps"] = params.study.personal_steps
        if job.arm.kind == "newcomer":
            more["own"] = self.project.manifest(str(job.arm.site)).digest
        return {
            "config": config_digest(params, self.project.base[1], self.project.sites),
            "arm": job.arm.key(),
            **more,
        }

    def _piece_key(self, job: Job) -> dict[str, object]:
        """All that decides a piece's figures."""
        evaluation = self.study.params.evaluation
        return {
            "model": self.model_key(job),
            "seed": self.study.params.seed,
            "scenes": [self.study.scenes.start, len(self.study.scenes)],
            "loss_draws": evaluation.loss_draws,
            "max_steps": evaluation.max_steps,
            "actions_per_look": evaluation.actions_per_look,
            "step_factor": evaluation.step_factor,
            "tasks": [manifest.digest for manifest in self._judged(job.arm)],
        }

    def _stem(self, job: Job, key: Mapping[str, object]) -> str:
        return f"{job.arm.slug}-seed{job.seed}-{key_of(key)[:8]}"

    def _file(self, job: Job) -> str:
        return f"{self._stem(job, self._piece_key(job))}.json"

    def _model_folder(self, job: Job) -> Path:
        return self.project.root / _MODELS / self._stem(job, self.model_key(job))

    def _record(self, params: Params) -> StudyRecord:
        study, arms = self.study, []
        for arm in study.arms:
            seeds = study.seeds if arm.seeded else (0,)
            told = {key: value for key, value in asdict(arm).items() if key in ArmRecord.model_fields}
            arms.append(ArmRecord(**told, files={seed: self._file(Job(arm, seed)) for seed in seeds}))
        return StudyRecord(
            **{name: getattr(study, name) for name in ("name", "title", "about", "command", "quick", "seeds")},
            scenes=(study.scenes.start, len(study.scenes)),
            arms=tuple(arms),
            params=params.model_dump(mode="json", exclude={"engine"}),  # which decides no figure
            results_version=RESULTS_VERSION,
        )
