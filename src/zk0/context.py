"""Task context: what a flow's run leaves behind for whoever, or whatever, takes over from it.

Every field comes from something that exists: params, the files that stages wrote, constraints.md
and how the steps ended. A field with nothing to say is empty and says why.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import xxhash

from zk0 import __version__
from zk0.environment import GIB, LOCK_FILE, now
from zk0.files import digest_file, read_json, write_json
from zk0.params import PARAMS_FILE, Params, ParamsError, load_params

CONTEXT = Path("context.json")
CONSTRAINTS = Path("constraints.md")
VERSION = "1.0"
_RUN, _ROUNDS = "results/federation/run.json", "results/federation/rounds.jsonl"
_ENVIRONMENT, _EVALUATION, _LOCK = "results/environment.json", "results/evaluation.json", "sources.lock.json"

# What each stage of the pipeline must have left when it has finished.
STAGE_FILES: dict[str, tuple[str, ...]] = {
    "validate": (_ENVIRONMENT, _LOCK),
    "prepare": ("data/manifests",),
    "federate": (_RUN, _ROUNDS, "checkpoints/best", "checkpoints/last"),
    "evaluate": (_EVALUATION,),
    "benchmark": ("results/benchmark.json",),
    "report": ("results/report.html",),
}
_OBJECTIVES = {
    "federate": "Train one policy over {sites} sites in {rounds} rounds of {strategy}, and compare it with its base",
    "train": "Train the policy on local data, exchange it with the server, and validate the global model",
    "client": "Set up a site and let it take part in federated rounds",
    "server": "Set up the server that averages the sites' updates in {rounds} rounds of {strategy}",
    "deploy": "Start the federation's services securely and check that they are healthy",
    "testing": "Test components, client and server together and a whole federation, and report the coverage",
    "benchmark": "Measure training, inference and transport on this machine",
}
# The template's wording, where it is not the key's own words.
_LABELS = {
    "task_id": "Task ID",
    "project_constraints": "Project Constraints (MANDATORY)",
    "document": "See",
    "context_to_preserve": "Context to Preserve",
    "pre_task_checklist": "Pre-Task Checklist",
    "post_task_validation": "Post-Task Validation",
    "captured_by": "Context Captured by",
}
_UNKNOWN = "not measured: the result has no value for it"


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


@dataclass(frozen=True)
class Item:
    """Something that holds, does not, or is not known (None), and what shows it."""

    item: str
    passed: bool | None
    evidence: str


def build_context(
    root: Path,
    *,
    flow: str,
    task_id: str,
    parent_id: str | None,
    created: str,
    mode: str,
    priority: str,
    outcome: str,
    stages: list[StageOutcome],
    error: str | None = None,
) -> dict[str, Any]:
    """Fill the task context template.

    Args:
        root: The project's root; params and results are read from it.
        flow: Name of the flow, for example ``federate``.
        task_id: Id of the flow's run.
        parent_id: Id of the run that started it, if one did.
        created: When it started, ISO 8601.
        mode: How it was started, for example ``nightly`` or ``manual``.
        priority: High, Medium or Low.
        outcome: How it ended, for example ``Completed``.
        stages: Its steps, in order; a result counts as measured only if its stage is among them.
        error: Why it failed, if it did.

    Returns:
        Sections of fields, each ``{"value": ...}`` or ``{"value": None, "why_empty": ...}``.
    """
    facts = _Facts(root, flow, outcome, stages, error, created)
    criteria, points = _criteria(facts), _validation_points(facts)
    return {
        "task_information": {
            "task_id": _field(task_id, "the flow's run has no id"),
            "parent_task": _field(parent_id, "no other run started it"),
            "created": _field(created, "the time was not given"),
            "mode": _field(mode, "the mode was not given"),
            "priority": _field(priority, "the priority was not given"),
        },
        "project_constraints": {
            "document": _field(CONSTRAINTS.as_posix() if facts.constraints else None, f"{CONSTRAINTS} not found"),
            "items": _field(facts.constraints, f"{CONSTRAINTS} not found, or without items"),
        },
        "task_description": {
            "objective": _field(*_objective(facts)),
            "scope": _field(_scope(facts), "no step was run"),
            "success_criteria": _field(_items(criteria), "no criterion is defined without steps"),
        },
        "technical_context": {
            "current_state": _field(_current_state(facts), "nothing was run"),
            "dependencies": _field(_dependencies(facts), facts.missing(_LOCK)),
            "constraints": _field(_limits(facts), facts.no_params),
        },
        "context_to_preserve": {
            "critical_information": _field(_critical(facts), facts.missing(_LOCK, _RUN)),
            "key_decisions": _field(_decisions(facts), facts.no_params),
            "assumptions": _field(_assumptions(facts), facts.no_params),
        },
        "subtask_requirements": {
            "context_inheritance": _field(_inheritance(facts), facts.no_params),
            "handover_information": _field(_handover(facts), "no result has been written"),
            "validation_points": _field(_items(points), "nothing to compare"),
        },
        "risk_mitigation": {
            "potential_context_loss_points": _field(_loss_points(facts), "none was found"),
            "recovery_procedures": _field(_recovery(facts), "nothing has been written that could be lost"),
            "prevention_measures": _field(_prevention(facts), "there is nothing yet to protect"),
        },
        "quality_assurance": {
            "pre_task_checklist": {"value": _items(_before(facts, criteria))},
            "post_task_validation": {"value": _items(_after(facts, criteria, points))},
        },
        "mode_transition_notes": {"notes": _field(_transition(facts), f"{outcome}, and nothing to hand over")},
        "capture": {
            "captured_by": {"value": f"the {flow} flow of zk0 {__version__}"},
            "last_updated": {"value": now()},
            "version": {"value": VERSION},
        },
    }


def write_context(root: Path, context: dict[str, Any]) -> None:
    """Write ``context.json`` at the project's root."""
    write_json(root / CONTEXT, context)


def _field(value: Any, why_empty: str) -> dict[str, Any]:
    return {"value": value} if value else {"value": None, "why_empty": why_empty}


def _items(items: list[Item]) -> list[dict[str, Any]]:
    return [asdict(item) for item in items]


def _get(value: Any, *keys: str) -> Any:
    """A nested entry, or None where a part of the way is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class _Facts:
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
        return None if validate and validate.state == "Failed" else self.read(_LOCK)

    @cached_property
    def run(self) -> dict[str, Any] | None:
        """The last federation that finished, whichever run it was of."""
        return self.read(_RUN)

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        return self.read(_EVALUATION)

    @cached_property
    def environment(self) -> dict[str, Any] | None:
        """The environment report, unless it is older than the flow's run."""
        report = self.read(_ENVIRONMENT)
        try:
            earlier = datetime.fromisoformat(_get(report, "created")) < _whole_second(self.created)
        except (TypeError, ValueError):
            earlier = False
        return None if earlier else report

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """Complete lines of rounds.jsonl; a run that was killed may have left half of one."""
        file = self.root / _ROUNDS
        rows: list[dict[str, Any]] = []
        for line in file.read_text().splitlines() if file.is_file() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    @cached_property
    def constraints(self) -> list[str]:
        file = self.root / CONSTRAINTS
        return re.findall(r"^- (.+)$", file.read_text(), re.MULTILINE) if file.is_file() else []

    @cached_property
    def git(self) -> str | None:
        """Revision of the code, and whether it has uncommitted changes."""
        git = ["git", "-C", str(self.root)]
        try:
            head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
            changes = subprocess.run(
                [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return head.stdout.strip() + (", with uncommitted changes" if changes.stdout.strip() else "")

    @cached_property
    def sources(self) -> dict[str, dict[str, Any]]:
        return {**(_get(self.lock, "sources") or {}), **(_get(self.lock, "unseen") or {})}

    @cached_property
    def moving(self) -> list[str]:
        """Sources named by a branch or tag of the Hub, which may be another commit tomorrow."""
        named = [str(entry.get("source")) for entry in [*self.sources.values(), _get(self.lock, "policy") or {}]]
        return [text for text in named if text.startswith("hub:") and not re.search(r"@[0-9a-f]{40}$", text)]

    @property
    def failed(self) -> list[StageOutcome]:
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
        for stage, name, content in (("federate", _RUN, self.run), ("evaluate", _EVALUATION, self.evaluation)):
            if not self.finished(stage):
                reasons[stage] = f"{stage} failed" if self.step_of(stage) else f"{stage} was not run"
            elif content is None:
                reasons[stage] = f"{name} is missing or unreadable"
        return reasons

    @property
    def own_run(self) -> dict[str, Any] | None:
        return None if "federate" in self.unread else self.run

    @property
    def own_evaluation(self) -> dict[str, Any] | None:
        return None if "evaluate" in self.unread else self.evaluation


def _whole_second(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(microsecond=0)


def _digest(value: Any) -> str:
    return xxhash.xxh3_128(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _params_digest(facts: _Facts) -> str | None:
    return _digest(facts.params.model_dump(mode="json")) if facts.params else None


def _objective(facts: _Facts) -> tuple[str | None, str]:
    text, params = _OBJECTIVES.get(facts.flow), facts.params
    if text is None:
        return None, f"no objective is recorded for a flow named '{facts.flow}'"
    if params is None:
        return None if "{" in text else text, facts.no_params
    return text.format(
        sites=_site_count(params), rounds=params.federation.rounds, strategy=params.federation.strategy
    ), ""


def _site_count(params: Params) -> int:
    return len(params.data.sites) if params.data.partition.scheme == "none" else params.data.partition.sites


def _scope(facts: _Facts) -> dict[str, list[str]]:
    included = [step.name for step in facts.stages]
    if facts.params:
        included += [f"site {name}: {source}" for name, source in facts.params.data.sites.items()]
    excluded = []
    if any(facts.step_of(stage) for stage in STAGE_FILES):
        excluded = [f"stage {stage}: not run" for stage in STAGE_FILES if not facts.step_of(stage)]
    if facts.params:
        excluded += [f"training on {name}: {source}" for name, source in facts.params.data.unseen.items()]
    return {key: value for key, value in (("included", included), ("excluded", excluded)) if value}


def _criteria(facts: _Facts) -> list[Item]:
    """What makes the run a success, and whether it was; None where it has not been measured."""
    done = sum(step.state != "Failed" for step in facts.stages)
    criteria = []
    if facts.stages:
        shown = f"{done} of {len(facts.stages)} steps" + (f", and then: {facts.error}" if facts.error else "")
        criteria.append(Item("every step completed", not facts.failed and facts.error is None, shown))
    trains = facts.flow in ("federate", "train") or facts.step_of("federate") or facts.step_of("evaluate")
    if facts.params and trains:
        criteria += [*_training_criteria(facts, facts.params), *_evaluation_criteria(facts, facts.params)]
    return criteria


def _training_criteria(facts: _Facts, params: Params) -> list[Item]:
    rounds = f"{params.federation.rounds} federated rounds completed"
    lower = "held-out loss of the best round lower than at the start"
    if reason := facts.unread.get("federate"):
        return [Item(name, None, f"not measured: {reason}") for name in (rounds, lower)]
    done, best, start = (_get(facts.run, k) for k in ("rounds", "best_held_out_loss", "start_held_out_loss"))
    known = best is not None and start is not None
    return [
        Item(rounds, done >= params.federation.rounds if done else None, f"{done} rounds" if done else _UNKNOWN),
        Item(lower, best < start if known else None, f"{best:.4f}, was {start:.4f}" if known else _UNKNOWN),
    ]


def _evaluation_criteria(facts: _Facts, params: Params) -> list[Item]:
    errors = "global action error lower than base on every site"
    rates = "global success rate on the sites' tasks higher than base"
    safety = "global model passes the safety check"
    # Only the embedded arm can be rolled out.
    rolled_out = params.evaluation.rollouts and any(s.startswith("sim:") for s in params.data.sites.values())
    names = [errors, *([rates] if rolled_out else []), safety]
    if reason := facts.unread.get("evaluate"):
        return [Item(name, None, f"not measured: {reason}") for name in names]
    tasks = [task for task in (_get(facts.evaluation, "tasks") or {}).values() if _get(task, "role") == "site"]
    pairs = [(_get(t, "global", "action_error_deg"), _get(t, "base", "action_error_deg")) for t in tasks]
    known = [(new, old) for new, old in pairs if new is not None and old is not None]
    better = sum(new < old for new, old in known)
    items = [Item(errors, better == len(pairs) if known else None, f"{better} of {len(pairs)}" if known else _UNKNOWN)]
    if rolled_out:
        base, new = (_get(facts.evaluation, "overall", m, "success_rate_seen") for m in ("base", "global"))
        known_rates = base is not None and new is not None
        shown = f"{new:.0%}, base {base:.0%}" if known_rates else _UNKNOWN
        items.append(Item(rates, new > base if known_rates else None, shown))
    passed = _get(facts.evaluation, "safety", "global", "passed")
    failing = [c["name"] for c in _get(facts.evaluation, "safety", "global", "checks") or [] if not c["passed"]]
    beyond = f"not within its limits: {', '.join(dict.fromkeys(failing))}"
    shown = _UNKNOWN if passed is None else "every check" if passed else beyond
    return [*items, Item(safety, passed, shown)]


def _current_state(facts: _Facts) -> dict[str, Any]:
    state: dict[str, Any] = {"outcome": facts.outcome}
    if facts.stages:
        state["steps"] = [f"{step.name}: {step.state} in {step.seconds:.1f} s" for step in facts.stages]
    if facts.error:
        state["error"] = facts.error
    if facts.finished("federate") and facts.run:
        best, loss = facts.run.get("best_round"), facts.run.get("best_held_out_loss")
        state["global model"] = f"round {best} of {facts.run.get('rounds')} is the best, held-out loss {loss}"
    return state


def _dependencies(facts: _Facts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    if facts.sources:
        found["data"] = [f"{name}: {_at(entry)}" for name, entry in facts.sources.items()]
    if policy := _get(facts.lock, "policy"):
        found["starting policy"] = _at(policy)
    if packages := _get(facts.environment, "packages"):
        found["external"] = [f"{name} {version}" for name, version in packages.items()]
    return found


def _at(entry: dict[str, Any]) -> str:
    return f"{entry.get('source')} at {entry.get('digest')}"


def _limits(facts: _Facts) -> dict[str, str]:
    if facts.params is None:
        return {}
    params, limits = facts.params, {}
    if this := _get(facts.environment, "machine"):
        gpus = ", ".join(gpu["name"] for gpu in this["gpus"]) or "no GPU"
        limits["machine"] = f"{this['cores']} cores, {this['memory_bytes'] / GIB:.1f} GiB of memory, {gpus}"
        limits["disk"] = f"{this['disk_free_bytes'] / GIB:.1f} GiB were free"
    limits["technical"] = f"device {params.policy.device}, {params.threads} threads"
    limits["time"] = f"replies of a round within {params.federation.timeout_s:g} s"
    limits["resources"] = f"images decoded in memory up to {params.data.decoded_limit_bytes:,} bytes a site"
    return limits


def _critical(facts: _Facts) -> dict[str, Any]:
    """The digests by which everything of this run is found again."""
    found: dict[str, Any] = {"params digest": _params_digest(facts)}
    found["starting policy digest"] = _get(facts.lock, "policy", "digest")
    found["source digests"] = {name: entry.get("digest") for name, entry in facts.sources.items()}
    if facts.run:
        if not facts.finished("federate"):
            found["of an earlier run"] = f"run, dataset and checkpoint digests: {_RUN} was not written by this one"
        found["run"] = facts.run.get("run")
        found["base digest"] = _get(facts.run, "base", "digest")
        found["dataset digests"] = _digests(facts.run.get("sites"))
        found["checkpoint digests"] = _digests(facts.run.get("checkpoints"))
    return {key: value for key, value in found.items() if value}


def _digests(entries: Any) -> dict[str, Any]:
    return {name: digest for name, entry in (entries or {}).items() if (digest := _get(entry, "digest"))}


def _decisions(facts: _Facts) -> list[dict[str, str]]:
    """What was decided, by params or by the run itself, and on what ground."""
    if facts.params is None:
        return []
    federation = facts.params.federation
    decided = [(f"{federation.strategy}, sites weighted by {federation.weighting}", "federation in params.yaml")]
    if base := _get(facts.lock, "policy", "source"):
        ours = base == facts.params.policy.base
        decided.insert(0, (f"start from {base}", "policy.base in params.yaml" if ours else "ZK0_BASE when validated"))
    if facts.finished("federate") and facts.run:
        loss = facts.run.get("best_held_out_loss")
        decided.append((f"round {facts.run.get('best_round')} is the best", f"lowest held-out loss: {loss}"))
        resumed = facts.run.get("resumed_at_rounds") or []
        decided += [(f"resumed at round {number}", "an earlier attempt ended") for number in resumed]
        for row in facts.rounds:
            left_out = (row.get("left_out") or {}).items()
            decided += [(f"round {row['round']} without {site}", str(reason)) for site, reason in left_out]
    return [{"decision": decision, "why": why} for decision, why in decided]


def _assumptions(facts: _Facts) -> list[str]:
    if facts.params is None:
        return []
    params = facts.params
    notes = [c for c in _get(facts.environment, "checks") or [] if not c["passed"] and c["severity"] == "warning"]
    return [
        f"every source records {params.data.fps} frames per second",
        f"{params.data.held_out:.0%} of each site's episodes are kept from training",
        f"a round needs good replies from {params.federation.min_replies:.0%} of the sites",
        f"the same numbers come only with seed {params.seed}, {params.threads} threads and device "
        f"{params.policy.device}",
        *(f"it works although {c['name']} is not as expected: {c['found']}" for c in notes),
    ]


def _inheritance(facts: _Facts) -> dict[str, str]:
    """What a subtask must start from to be part of the same run."""
    if facts.params is None:
        return {}
    found = {"params": f"params.yaml at {_params_digest(facts)}", "seed": str(facts.params.seed)}
    if facts.lock:
        found["sources"] = f"{_LOCK} at {digest_file(facts.root / _LOCK)}"
    if (facts.root / LOCK_FILE).is_file():
        found["packages"] = f"{LOCK_FILE.as_posix()} at {digest_file(facts.root / LOCK_FILE)}"
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    return found


def _handover(facts: _Facts) -> list[str]:
    """The results that the next task finds, with their digests where they have one."""
    found = []
    for stage, names in STAGE_FILES.items():
        for name in names:
            if not (facts.root / name).exists():
                continue
            digest = _get(facts.run, "checkpoints", Path(name).name, "digest") if name.startswith("checkpoints") else ""
            age = "" if facts.finished(stage) else " (of an earlier run)"
            found.append(name + (f" at {digest}" if digest else "") + age)
    return found


def _validation_points(facts: _Facts) -> list[Item]:
    """Where one stage's result must be what the next one started from."""
    run, judgement = facts.own_run, facts.own_evaluation
    revisions = {_get(site, "revision") for site in (_get(run, "sites") or {}).values()}
    resolved = {entry.get("digest") for entry in facts.sources.values()}
    known = bool(revisions and resolved)
    best, judged = _get(run, "checkpoints", "best", "digest"), _get(judgement, "models", "global", "digest")
    base, start = _get(run, "base", "digest"), _get(facts.lock, "policy", "digest")
    finished = [stage for stage in STAGE_FILES if facts.finished(stage)]
    kept = f"missing: {', '.join(facts.lost)}" if facts.lost else f"of {', '.join(finished) or 'no stage'}: all there"
    count = f"{len(revisions & resolved)} of {len(revisions)}" if known else facts.missing(_RUN, _LOCK)
    return [
        Item("finished stages left their results", not facts.lost if finished else None, kept),
        _same("the run started from the resolved policy", base, start, facts.missing(_RUN, _LOCK)),
        Item("every site trained on a resolved source", revisions <= resolved if known else None, count),
        _same("the evaluated model is the run's best", judged, best, facts.missing(_EVALUATION, _RUN)),
    ]


def _same(name: str, one: Any, other: Any, unknown: str) -> Item:
    if not one or not other:
        return Item(name, None, unknown)
    return Item(name, one == other, str(one) if one == other else f"{one} is not {other}")


def _loss_points(facts: _Facts) -> list[str]:
    points = [f"{step.name} failed: its results are missing or of an earlier run" for step in facts.failed]
    points += [f"{name} is missing, although its stage finished" for name in facts.lost]
    if (facts.root / "state").is_dir():
        points.append("state/ is in neither git nor DVC: without it an unfinished run starts again")
    if facts.git and "," in facts.git:
        points.append("uncommitted changes: the git revision does not describe the code that ran")
    points += [f"{source} may be another commit tomorrow" for source in facts.moving]
    if (facts.root / "mlflow.db").is_file():
        points.append("mlflow.db names artifacts by absolute path: a moved project does not find them")
    return points


def _recovery(facts: _Facts) -> list[str]:
    """The commands that bring the run, or its results, back."""
    lines = []
    federate = facts.step_of("federate")
    if federate and federate.state == "Failed":
        states = sorted((facts.root / "state").glob("*/"), key=lambda folder: folder.stat().st_mtime)
        if states:
            last = f"; rounds.jsonl ends with round {facts.rounds[-1].get('round')}" if facts.rounds else ""
            after = f"continues after the last complete round, from state/{states[-1].name}/{last}"
        else:
            after = "starts from round 1: there is no saved state"
        lines.append(f"`zk0 federate` or `dvc repro` {after}")
    others = [step.stage or step.name for step in facts.failed if step is not federate]
    lines += [f"`dvc repro` runs {stage} again, and nothing that is fresh" for stage in others if stage in STAGE_FILES]
    lines += [f"`dvc repro` makes {name} again" for name in facts.lost]
    if (facts.root / "dvc.lock").is_file():
        lines.append("`dvc checkout` puts back the results that dvc.lock names")
    if facts.run:
        lines.append(f"`zk0 track` writes the MLflow run again from {_RUN}")
    return lines


def _prevention(facts: _Facts) -> list[str]:
    lines = []
    if (facts.root / "dvc.lock").is_file():
        lines.append("commit dvc.lock together with params.yaml: they name every result by digest")
    if (facts.root / "state").is_dir():
        lines.append("keep state/ until the run has finished; it is saved whole after each round")
    if facts.git and "," in facts.git:
        lines.append("commit before a run, so that its revision says what ran")
    lines += [f"write {source} with a commit after the @" for source in facts.moving]
    return lines


def _all(values: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is or there are none, else True."""
    kept = list(values)
    return False if False in kept else True if kept and None not in kept else None


def _before(facts: _Facts, criteria: list[Item]) -> list[Item]:
    checks = _get(facts.environment, "checks") or []
    failing = [c["name"] for c in checks if not c["passed"] and c["severity"] == "error"]
    if not checks:
        verified = f"{_ENVIRONMENT} not found, or from before this run"
    else:
        verified = f"not passed: {', '.join(failing)}" if failing else f"{len(checks)} checks, none failed"
    needed = {
        PARAMS_FILE.name: facts.params,
        _LOCK: facts.lock,
        _ENVIRONMENT: facts.environment,
        CONSTRAINTS.name: facts.constraints,
    }
    absent = [name for name, content in needed.items() if not content]
    captured = f"nothing of this run in {', '.join(absent)}" if absent else f"read from {', '.join(needed)}"
    wanted = {**facts.params.data.sites, **facts.params.data.unseen} if facts.params else {}
    resolved = [name for name in wanted if _get(facts.sources.get(name), "digest")]
    identified = len(resolved) == len(wanted) and bool(_get(facts.lock, "policy", "digest"))
    known = bool(facts.lock and wanted)
    count = f"{len(resolved)} of {len(wanted)} sources by digest{', and the starting policy' if identified else ''}"
    return [
        Item("All constraints verified", not failing if checks else None, verified),
        Item("Context fully captured", not absent, captured),
        Item("Success criteria defined", bool(criteria), f"{len(criteria)} criteria"),
        Item("Dependencies identified", identified if known else None, count if known else facts.missing(_LOCK)),
    ]


def _after(facts: _Facts, criteria: list[Item], points: list[Item]) -> list[Item]:
    report = "results/report.html"
    if facts.step_of("report") is None:
        documented = Item("Documentation updated", None, "the report stage was not run")
    else:
        written = facts.finished("report") and (facts.root / report).is_file()
        evidence = f"{report} and context.json" if written else f"{report} was not written"
        documented = Item("Documentation updated", written, evidence)
    quality = [c for c in criteria if c.item.startswith(("every step", "global model passes"))]
    return [
        Item("Success criteria met", _all(c.passed for c in criteria), _tally(criteria)),
        Item("Context preserved", _all(p.passed for p in points), _tally(points)),
        documented,
        Item("Quality standards maintained", _all(c.passed for c in quality), _tally(quality)),
    ]


def _tally(items: list[Item]) -> str:
    """How many hold, and which do not or are not known."""
    text = f"{sum(bool(i.passed) for i in items)} of {len(items)}"
    for label, verdict in (("not met", False), ("not known", None)):
        if names := [i.item for i in items if i.passed is verdict]:
            text += f"; {label}: {', '.join(names)}"
    return text


def _transition(facts: _Facts) -> str | None:
    if facts.failed or facts.error:
        where = f" in {facts.failed[0].name}" if facts.failed else ""
        return f"Ended as {facts.outcome}{where}. Mend what the error names, then see Recovery Procedures."
    best = _get(facts.run, "checkpoints", "best")
    if facts.finished("evaluate") and best:
        return f"{best.get('path')} at {best.get('digest')} is evaluated and can be compared with the champion."
    if facts.finished("federate") and best:
        return f"{best.get('path')} at {best.get('digest')} is trained and not yet evaluated."
    return None


def render_markdown(context: dict[str, Any]) -> str:
    """The context as markdown, with the template's headings; checklists as ``- [x]`` and ``- [ ]``."""
    lines = [f"# Task Context: {_line(context['task_information']['task_id']['value'])}", ""]
    for section, fields in context.items():
        lines += ["---", ""] if section == "capture" else [f"### {_label(section)}", ""]
        for key, content in fields.items():
            lines += [*_render_field("" if key == "notes" else _label(key), content), ""]
    return "\n".join(lines).rstrip() + "\n"


def _label(key: str) -> str:
    return _LABELS.get(key) or key.replace("_", " ").title()


def _render_field(label: str, content: dict[str, Any]) -> list[str]:
    start, value = f"**{label}**: " if label else "", content["value"]
    if value is None:
        return [f"{start}*empty: {_line(content['why_empty'])}*"]
    if not isinstance(value, (dict, list)):
        return [start + _line(value)]
    return [start.strip(), "", *_bullets(value)]


def _bullets(value: dict[str, Any] | list[Any], indent: str = "") -> list[str]:
    lines = []
    for name, entry in value.items() if isinstance(value, dict) else ((None, entry) for entry in value):
        prefix = f"{indent}- {name}: " if name else f"{indent}- "
        if isinstance(entry, dict) and "passed" in entry:
            box = "x" if entry["passed"] else " "
            lines.append(f"{prefix}[{box}] {_line(entry['item'])} ({_line(_verdict(entry))})")
        elif isinstance(entry, dict) and "decision" in entry:
            lines.append(f"{prefix}{_line(entry['decision'])} ({_line(entry['why'])})")
        elif isinstance(entry, (dict, list)):
            lines += [prefix.rstrip(), *_bullets(entry, indent + "  ")]
        else:
            lines.append(prefix + _line(entry))
    return lines


def _verdict(item: dict[str, Any]) -> str:
    """The evidence, led by the word that an empty box leaves open: failed, or not known."""
    evidence = str(item["evidence"])
    lead = {True: "", False: "failed: ", None: "not known: "}[item["passed"]]
    return evidence if evidence.startswith("not measured") else lead + evidence


def _line(value: Any) -> str:
    """One line of text; messages of several lines would break a list."""
    return " ".join(str(value).split())
