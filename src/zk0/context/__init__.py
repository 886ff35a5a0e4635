"""Task context: what a flow's run leaves behind for whoever, or whatever, takes over from it.

Every field comes from something that exists: params, the files that stages wrote, constraints.md
and how the steps ended. A field with nothing to say is empty and says why.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zk0 import __version__
from zk0.context.checklists import after_task, before_task
from zk0.context.criteria import Item, success_criteria, validation_points
from zk0.context.facts import CONSTRAINTS, LOCK, RUN, Facts, StageOutcome
from zk0.context.handover import (
    assumptions,
    context_inheritance,
    critical_information,
    handover_information,
    key_decisions,
)
from zk0.context.markdown import render_markdown
from zk0.context.operations import deployment_criteria, deployment_decisions, site_criteria
from zk0.context.recovery import loss_points, prevention_measures, recovery_procedures, transition
from zk0.context.summary import current_state, dependencies, limits, objective, scope
from zk0.files import write_json

__all__ = ["StageOutcome", "build_context", "render_markdown", "write_context"]

CONTEXT = Path("context.json")
VERSION = "1.0"


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
    facts = Facts(root, flow, outcome, stages, error, created)
    criteria = [*success_criteria(facts), *deployment_criteria(facts), *site_criteria(facts)]
    points = validation_points(facts)
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
            "objective": _field(*objective(facts)),
            "scope": _field(scope(facts), "no step was run"),
            "success_criteria": _field(_items(criteria), "no criterion is defined without steps"),
        },
        "technical_context": {
            "current_state": _field(current_state(facts), "nothing was run"),
            "dependencies": _field(dependencies(facts), facts.missing(LOCK)),
            "constraints": _field(limits(facts), facts.no_params),
        },
        "context_to_preserve": {
            "critical_information": _field(critical_information(facts), facts.missing(LOCK, RUN)),
            "key_decisions": _field([*key_decisions(facts), *deployment_decisions(facts)], facts.no_params),
            "assumptions": _field(assumptions(facts), facts.no_params),
        },
        "subtask_requirements": {
            "context_inheritance": _field(context_inheritance(facts), facts.no_params),
            "handover_information": _field(handover_information(facts), "no result has been written"),
            "validation_points": _field(_items(points), "nothing to compare"),
        },
        "risk_mitigation": {
            "potential_context_loss_points": _field(loss_points(facts), "none was found"),
            "recovery_procedures": _field(recovery_procedures(facts), "nothing has been written that could be lost"),
            "prevention_measures": _field(prevention_measures(facts), "there is nothing yet to protect"),
        },
        "quality_assurance": {
            "pre_task_checklist": {"value": _items(before_task(facts, criteria))},
            "post_task_validation": {"value": _items(after_task(facts, criteria, points))},
        },
        "mode_transition_notes": {"notes": _field(transition(facts), f"{outcome}, and nothing to hand over")},
        "capture": {
            "captured_by": {"value": f"the {flow} flow of zk0 {__version__}"},
            "last_updated": {"value": datetime.now(UTC).isoformat(timespec="seconds")},
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
