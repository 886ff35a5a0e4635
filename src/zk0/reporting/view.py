"""The tables of the report, arranged from the records: what belongs in a row, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zk0.records.results import Evaluation, JointTrace, Pair, Safety, SafetyCheck, Task
from zk0.records.run import Round, Run, Site
from zk0.reporting import format as fmt
from zk0.reporting.changes import Change, Success, task_success
from zk0.reporting.verdict import Verdict

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Tile:
    """One headline figure: base, global, and the change with its tone."""

    title: str
    base: str
    trained: str
    change: str
    tone: Tone
    note: str


@dataclass(frozen=True)
class TaskRow:
    """One task of the evaluation table."""

    name: str
    task: Task
    error: Change
    loss: Change
    success: Success


@dataclass(frozen=True)
class SafetyRow:
    """One safety check, for both models."""

    name: str
    unit: str
    limit: float | None
    base: SafetyCheck | None
    trained: SafetyCheck | None


def tiles(verdict: Verdict, evaluation: Evaluation) -> list[Tile]:
    """The headline figures; of the unseen tasks only where there are some."""
    unseen = [_success_tile("Success, unseen tasks", verdict.unseen)] if evaluation.with_role("unseen") else []
    return [
        _value_tile("Action error, sites", verdict.error, fmt.degrees, "mean over sites, held-out frames"),
        _success_tile("Success, sites' tasks", verdict.seen),
        *unseen,
        _value_tile("Held-out loss, sites", verdict.loss, fmt.number, "each model in its own units", judged=False),
    ]


def unseen_sites(run: Run, evaluation: Evaluation) -> dict[str, Site]:
    """Data of no site: as the run knew it, or else what the evaluation says of it."""
    judged = {
        name: Site(source=task.source or fmt.NOTHING, tasks=[task.sentence], held_out_frames=task.base.held_out_frames)
        for name, task in evaluation.with_role("unseen").items()
    }
    return judged | run.unseen


def task_rows(evaluation: Evaluation) -> list[TaskRow]:
    """The sites' tasks first, then the unseen ones."""
    ordered = [*evaluation.with_role("site").items(), *evaluation.with_role("unseen").items()]
    return [
        TaskRow(
            name=name,
            task=task,
            error=Change(task.base.action_error_deg, task.trained.action_error_deg),
            loss=Change(task.base.held_out_loss, task.trained.held_out_loss),
            success=task_success(task),
        )
        for name, task in ordered
    ]


def safety_rows(safety: Pair[Safety]) -> list[SafetyRow]:
    """Both models' checks side by side.

    A check's joint is the one that did worst and may differ between models, so it tells checks
    apart only where a name alone does not.
    """
    models = (safety.base.checks, safety.trained.checks)
    unique = all(len({check.name for check in checks}) == len(checks) for checks in models)

    def keyed(checks: Iterable[SafetyCheck]) -> dict[tuple[str, str | None], SafetyCheck]:
        return {(check.name, None if unique else check.joint): check for check in checks}

    base, trained = (keyed(checks) for checks in models)
    rows = []
    for key in dict.fromkeys([*trained, *base]):
        one = trained.get(key) or base[key]
        rows.append(SafetyRow(one.name, one.unit, one.limit, base.get(key), trained.get(key)))
    return rows


def fastest_joint(trace: JointTrace, longest: Mapping[str, float]) -> str:
    """How fast the arm was at most, in words, and how far ahead of it a target may lie.

    Args:
        trace: The joints' way.
        longest: Joint to its longest step, degrees (gripper: percent); empty where it is not known.
    """
    steps = zip(trace.positions, trace.positions[1:], strict=False)
    speeds = [[abs(after - before) * trace.hz for before, after in zip(*pair, strict=True)] for pair in steps]
    arm = [(max(column), joint) for joint, column in zip(trace.joints, zip(*speeds, strict=True), strict=True)]
    speed, joint = max(one for one in arm if one[1] != "gripper")
    told = f"Fastest: {joint.replace('_', ' ')}, {speed:.0f} degrees a second"
    return f"{told}; its target may lie {longest[joint]:.1f} degrees ahead." if joint in longest else f"{told}."


def left_out(rounds: Iterable[Round]) -> list[tuple[int, str, str]]:
    """(round, site, reason) of every reply that was not averaged."""
    return [(one.round, site, reason) for one in rounds for site, reason in one.left_out.items()]


def site_bytes(rounds: Iterable[Round]) -> dict[str, tuple[int, int]]:
    """Bytes up and down of each site over the run."""
    totals: dict[str, tuple[int, int]] = {}
    for one in rounds:
        for name, site in one.sites.items():
            up, down = totals.get(name, (0, 0))
            totals[name] = up + (site.bytes_up or 0), down + (site.bytes_down or 0)
    return totals


def site_seconds(rounds: Iterable[Round]) -> dict[str, tuple[float, float]]:
    """Seconds of training and of evaluating of each site over the run."""
    totals: dict[str, tuple[float, float]] = {}
    for one in rounds:
        for name, site in one.sites.items():
            train, evaluate = totals.get(name, (0.0, 0.0))
            totals[name] = train + (site.train_s or 0), evaluate + (site.evaluate_s or 0)
    return totals


def params_sections(params: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(section, [(dotted key, value)]): top-level values first, then a section for each mapping."""
    top = [(key, fmt.plain(value)) for key, value in params.items() if not isinstance(value, Mapping)]
    sections = [("general", top)] if top else []
    sections += [(key, list(_dotted(value, key))) for key, value in params.items() if isinstance(value, Mapping)]
    return sections


def _dotted(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Nested keys as one path, the way `dvc exp run -S` takes them."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", fmt.plain(value)


def _value_tile(title: str, change: Change, text: Any, note: str, judged: bool = True) -> Tile:
    """A tile of a value that is better when lower."""
    if change.delta is None:
        return Tile(title, fmt.NOTHING, "not measured", "", "neutral", note)
    tone: Tone = "neutral" if not judged or not change.delta else "good" if change.delta < 0 else "bad"
    moved = fmt.signed_percent(change.relative) if change.relative is not None else fmt.signed(change.delta)
    return Tile(title, text(change.base), text(change.trained), moved, tone, note)


def _success_tile(title: str, success: Success) -> Tile:
    """A tile of a rate; coloured only when the intervals lie apart."""
    if success.base is None or success.trained is None:
        return Tile(title, fmt.NOTHING, "not measured", "", "neutral", success.why_not or "no rollouts")
    tones: dict[int, Tone] = {1: "good", 0: "neutral", -1: "bad"}
    return Tile(
        title=title,
        base=fmt.percent(success.base.value),
        trained=fmt.percent(success.trained.value),
        change=fmt.points(success.delta),
        tone=tones[success.direction],
        note="95% intervals overlap" if success.overlap else "95% intervals do not overlap",
    )
