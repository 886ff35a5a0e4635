"""What is known about a run: its params, its steps, and the records that stages left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from zk0.data.manifest import Manifest, read_manifests
from zk0.digests import quick_digest
from zk0.errors import StageError
from zk0.files import BadFileError, read_mapping
from zk0.hub import moving
from zk0.machine.repository import revision
from zk0.params import PARAMS_FILE, Params, ParamsError, load_params
from zk0.records import paths
from zk0.records.base import Record
from zk0.records.files import RecordError, read, rounds_so_far
from zk0.records.results import Deployment, DeploymentFacts, Environment, Evaluation, SiteSummary
from zk0.records.run import Round, Run
from zk0.sources import LOCK as LOCK_FILE
from zk0.sources import LockEntry, SourcesLock

CONSTRAINTS = Path("constraints.md")
LOCK = LOCK_FILE.as_posix()
RUN, EVALUATION, ENVIRONMENT, SITE, REPORT = (
    path.as_posix() for path in (paths.RUN, paths.EVALUATION, paths.ENVIRONMENT, paths.SITE_SUMMARY, paths.REPORT)
)

# What each stage of the pipeline must have left when it has finished.
STAGE_FILES: dict[str, tuple[str, ...]] = {
    "validate": (ENVIRONMENT, LOCK),
    "prepare": ("data/manifests",),
    "federate": (RUN, paths.ROUNDS.as_posix(), "checkpoints/best", "checkpoints/last"),
    "evaluate": (EVALUATION,),
    "benchmark": (paths.BENCHMARK.as_posix(),),
    "report": (REPORT,),
}


@dataclass(frozen=True)
class StageOutcome:
    """How one step of a flow ended.

    Attributes:
        name: The step as a person knows it.
        state: ``Unchanged`` means that everything was fresh and nothing ran.
        seconds: How long it took.
        stage: The pipeline's stage that the step ran, where its name is another.
    """

    name: str
    state: Literal["Completed", "Unchanged", "Failed", "Cancelled"]
    seconds: float
    stage: str | None = None


class Facts:
    """What is known about a run: read when asked for; what is missing or spoilt is None."""

    def __init__(
        self, root: Path, flow: str, outcome: str, stages: list[StageOutcome], error: str | None, created: str
    ) -> None:
        self.root, self.flow, self.outcome, self.stages = root, flow, outcome, stages
        self.error, self.created = error, created
        self.params: Params | None = None
        self.no_params = ""
        try:
            self.params = load_params(root / PARAMS_FILE)
        except ParamsError as problem:
            self.no_params = f"params could not be read: {problem}"

    def has(self, name: str | Path) -> bool:
        """Whether a file or folder is there, below the root."""
        return (self.root / name).exists()

    def _read[R: Record](self, kind: type[R]) -> R | None:
        try:
            return read(self.root, kind)
        except RecordError:
            return None

    @cached_property
    def params_digest(self) -> str | None:
        """Digest of every param, defaults included."""
        if self.params is None:
            return None
        return quick_digest(self.params.model_dump(mode="json"))

    @cached_property
    def lock(self) -> SourcesLock | None:
        """What the sources resolved to; when resolving failed, the file is of an earlier run."""
        validate = self.step_of("validate")
        if validate and validate.state == "Failed":
            return None
        try:
            return cast(SourcesLock, read_mapping(self.root / LOCK, "sources", "unseen", "policy"))
        except (BadFileError, FileNotFoundError):
            return None

    @cached_property
    def start(self) -> LockEntry | None:
        """What the starting policy resolved to."""
        return self.lock["policy"] if self.lock else None

    @cached_property
    def sources(self) -> dict[str, LockEntry]:
        """Resolved sources of sites and of unseen tasks, by name."""
        return {**self.lock["sources"], **self.lock["unseen"]} if self.lock else {}

    @cached_property
    def run(self) -> Run | None:
        """The last federation that finished, whichever run it was of."""
        return self._read(Run)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation that finished, whichever run it was of."""
        return self._read(Evaluation)

    @cached_property
    def environment(self) -> Environment | None:
        """The environment report, unless it is older than the flow's run."""
        report = self._read(Environment)
        try:
            began = datetime.fromisoformat(self.created).replace(microsecond=0)
            earlier = report is not None and datetime.fromisoformat(report.created or "") < began
        except (TypeError, ValueError):
            earlier = False
        return None if earlier else report

    def deployed(self, step: Literal["review", "resources", "health"]) -> DeploymentFacts:
        """What a step of this run's deployment found; nothing where it did not finish."""
        name = str(Deployment.model_fields[step].alias)
        record = self._read(Deployment) if self.finished(name) else None
        found = getattr(record, step, None)
        return found.facts if found else DeploymentFacts()

    @cached_property
    def site(self) -> SiteSummary | None:
        """What a site did in a federation over a network, if this run watched it to the end."""
        return self._read(SiteSummary) if self.finished("logging and monitoring") else None

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """The data that a site took into a federation over a network, by site."""
        try:
            return {one.site: one for one in read_manifests(self.root)[0]} if self.site else {}
        except (StageError, ValueError):  # none, or damaged
            return {}

    @cached_property
    def rounds(self) -> list[Round]:
        """The complete rounds; a run that was killed may have left half of one."""
        return rounds_so_far(self.root)

    @cached_property
    def constraints(self) -> list[str]:
        """The items of constraints.md."""
        file = self.root / CONSTRAINTS
        return re.findall(r"^- (.+)$", file.read_text(), re.MULTILINE) if file.is_file() else []

    @cached_property
    def git(self) -> str | None:
        """Revision of the code, and whether it has uncommitted changes."""
        return revision(self.root).told

    @cached_property
    def moving(self) -> list[str]:
        """Sources named by a branch or tag of the Hub, which may be another commit tomorrow."""
        entries = [*self.sources.values(), *([self.start] if self.start else [])]
        return [entry["source"] for entry in entries if moving(entry["source"], entry["digest"])]

    @property
    def failed(self) -> list[StageOutcome]:
        """The steps that failed, in order."""
        return [step for step in self.stages if step.state in ("Failed", "Cancelled")]

    def step_of(self, stage: str) -> StageOutcome | None:
        """The step that ran a stage of the pipeline."""
        return next((step for step in reversed(self.stages) if (step.stage or step.name) == stage), None)

    def finished(self, stage: str) -> bool:
        """Whether this run made a stage's results, or found them fresh."""
        step = self.step_of(stage)
        return step is not None and step.state in ("Completed", "Unchanged")

    def missing(self, *names: str) -> str:
        """Why there is nothing from these files."""
        absent = [name for name in names if not self.has(name)]
        return f"{' and '.join(absent)} not found" if absent else f"{' and '.join(names)}: nothing of this run"

    @cached_property
    def lost(self) -> list[str]:
        """Results that finished stages should have left, but that are not there."""
        files = [name for stage, names in STAGE_FILES.items() if self.finished(stage) for name in names]
        return [name for name in files if not self.has(name)]

    @cached_property
    def unread(self) -> dict[str, str]:
        """Why a stage's result cannot be used, for those whose result cannot."""
        reasons = {}
        for stage, name, content in (("federate", RUN, self.run), ("evaluate", EVALUATION, self.evaluation)):
            if not self.finished(stage):
                reasons[stage] = f"{stage} failed" if self.step_of(stage) else f"{stage} was not run"
            elif content is None:
                reasons[stage] = f"{name} is missing or unreadable"
        return reasons

    @property
    def own_run(self) -> Run | None:
        """The federation, if this run made it or found it fresh."""
        return None if "federate" in self.unread else self.run

    @property
    def own_evaluation(self) -> Evaluation | None:
        """The evaluation, if this run made it or found it fresh."""
        return None if "evaluate" in self.unread else self.evaluation
