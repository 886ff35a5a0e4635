"""What is known about a run: its params, its steps, and the files that stages left."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import xxhash

from zk0.files import read_json
from zk0.machine.repository import revision
from zk0.params import PARAMS_FILE, Params, ParamsError, load_params
from zk0.records.files import read_lines

CONSTRAINTS = Path("constraints.md")
RUN, ROUNDS = "results/federation/run.json", "results/federation/rounds.jsonl"
ENVIRONMENT, EVALUATION, LOCK = "results/environment.json", "results/evaluation.json", "sources.lock.json"
SITE = "results/site/summary.json"
DEPLOYMENT = "results/deployment.json"

# What each stage of the pipeline must have left when it has finished.
STAGE_FILES: dict[str, tuple[str, ...]] = {
    "validate": (ENVIRONMENT, LOCK),
    "prepare": ("data/manifests",),
    "federate": (RUN, ROUNDS, "checkpoints/best", "checkpoints/last"),
    "evaluate": (EVALUATION,),
    "benchmark": ("results/benchmark.json",),
    "report": ("results/report.html",),
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
    state: Literal["Completed", "Unchanged", "Failed"]
    seconds: float
    stage: str | None = None


class Facts:
    """What is known about a run: read when asked for, missing files as None."""

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

    @cached_property
    def params_digest(self) -> str | None:
        """Digest of every param, defaults included."""
        if self.params is None:
            return None
        return xxhash.xxh3_128(json.dumps(self.params.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file below the root; None if it is missing or spoilt."""
        try:
            content = read_json(self.root / name)
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    @cached_property
    def lock(self) -> dict[str, Any] | None:
        """What the sources resolved to; when resolving failed, the file is of an earlier run."""
        validate = self.step_of("validate")
        return None if validate and validate.state == "Failed" else self.read(LOCK)

    @cached_property
    def run(self) -> dict[str, Any] | None:
        """The last federation that finished, whichever run it was of."""
        return self.read(RUN)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """The last evaluation that finished, whichever run it was of."""
        return self.read(EVALUATION)

    @cached_property
    def deployment(self) -> dict[str, Any] | None:
        """What the steps of the last deployment came to."""
        return self.read(DEPLOYMENT)

    @cached_property
    def environment(self) -> dict[str, Any] | None:
        """The environment report, unless it is older than the flow's run."""
        report = self.read(ENVIRONMENT)
        try:
            earlier = datetime.fromisoformat(get(report, "created")) < _whole_second(self.created)
        except (TypeError, ValueError):
            earlier = False
        return None if earlier else report

    @cached_property
    def site(self) -> dict[str, Any] | None:
        """What a site did in a federation over a network, if this run watched it to the end."""
        return self.read(SITE) if self.finished("logging and monitoring") else None

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """Complete lines of rounds.jsonl; a run that was killed may have left half of one."""
        return read_lines(self.root / ROUNDS)

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
    def sources(self) -> dict[str, dict[str, Any]]:
        """Resolved sources of sites and of unseen tasks, by name."""
        return {**(get(self.lock, "sources") or {}), **(get(self.lock, "unseen") or {})}

    @cached_property
    def moving(self) -> list[str]:
        """Sources named by a branch or tag of the Hub, which may be another commit tomorrow."""
        named = [str(entry.get("source")) for entry in [*self.sources.values(), get(self.lock, "policy") or {}]]
        return [text for text in named if text.startswith("hub:") and not re.search(r"@[0-9a-f]{40}$", text)]

    @property
    def failed(self) -> list[StageOutcome]:
        """The steps that failed, in order."""
        return [step for step in self.stages if step.state == "Failed"]

    def step_of(self, stage: str) -> StageOutcome | None:
        """The step that ran a stage of the pipeline."""
        return next((step for step in reversed(self.stages) if (step.stage or step.name) == stage), None)

    def finished(self, stage: str) -> bool:
        """Whether this run made a stage's results, or found them fresh."""
        step = self.step_of(stage)
        return step is not None and step.state != "Failed"

    def missing(self, *names: str) -> str:
        """Why there is nothing from these files."""
        absent = [name for name in names if not (self.root / name).exists()]
        return f"{' and '.join(absent)} not found" if absent else f"{' and '.join(names)}: nothing of this run"

    @cached_property
    def lost(self) -> list[str]:
        """Results that finished stages should have left, but that are not there."""
        files = [name for stage, names in STAGE_FILES.items() if self.finished(stage) for name in names]
        return [name for name in files if not (self.root / name).exists()]

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
    def own_run(self) -> dict[str, Any] | None:
        """The federation, if this run made it or found it fresh."""
        return None if "federate" in self.unread else self.run

    @property
    def own_evaluation(self) -> dict[str, Any] | None:
        """The evaluation, if this run made it or found it fresh."""
        return None if "evaluate" in self.unread else self.evaluation


def get(value: Any, *keys: str) -> Any:
    """A nested entry, or None where a part of the way is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _whole_second(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(microsecond=0)
