"""Task context: what a flow's run leaves behind for whoever, or whatever, takes over from it.

Every field comes from something that exists: params, the records that stages wrote, constraints.md
and how the steps ended. A field with nothing to say is empty and says why.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jinja2

from zk0 import __version__
from zk0.context import fields, owner
from zk0.context.criteria import Item, after_task, before_task, success_criteria, validation_points
from zk0.context.facts import CONSTRAINTS, LOCK, RUN, Facts, StageOutcome
from zk0.files import write_json
from zk0.words import in_markdown

__all__ = ["Context", "StageOutcome", "build_context", "render_markdown", "write_context"]

CONTEXT = Path("context.json")
VERSION = "1.0"
_TEMPLATES = Path(__file__).with_name("templates")
# The template's wording, where it is not the key's own words.
_LABELS = {
    "trained_on": "Trained On",
    "came_of_it": "Came of It",
    "left_the_machine": "Left This Machine",
    "what_next": "What to Do Next",
    "task_id": "Task ID",
    "project_constraints": "Project Constraints (MANDATORY)",
    "document": "See",
    "context_to_preserve": "Context to Preserve",
    "pre_task_checklist": "Pre-Task Checklist",
    "post_task_validation": "Post-Task Validation",
    "captured_by": "Context Captured by",
}


class Field(TypedDict):
    """What a field says, or None and why it is empty: text, a list, a mapping, or a list of items."""

    value: Any
    why_empty: NotRequired[str]


Context = dict[str, dict[str, Field]]


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
) -> Context:
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
        What an owner asks first, then the template's sections of fields in its order.
    """
    facts = Facts(root, flow, outcome, stages, error, created)
    return {
        "in_short": _in_short(facts),
        "task_information": {
            "task_id": _field(task_id, "the flow's run has no id"),
            "parent_task": _field(parent_id, "no other run started it"),
            "created": _field(created, "the time was not given"),
            "mode": _field(mode, "the mode was not given"),
            "priority": _field(priority, "the priority was not given"),
        },
        **_sections(facts),
        "capture": {
            "captured_by": {"value": f"the {flow} flow of zk0 {__version__}"},
            "last_updated": {"value": datetime.now(UTC).isoformat(timespec="seconds")},
            "version": {"value": VERSION},
        },
    }


def _in_short(facts: Facts) -> dict[str, Field]:
    why = owner.why_nothing(facts)
    return {
        "trained_on": _field(owner.trained_on(facts), why),
        "left_the_machine": _field(owner.left_the_machine(facts), why),
        "came_of_it": _field(owner.came_of_it(facts), why),
        "what_next": _field(owner.what_next(facts), why),
    }


def _sections(facts: Facts) -> Context:
    """All sections that the run's params and records fill."""
    criteria, points, no_params = success_criteria(facts), validation_points(facts), facts.no_params
    return {
        "project_constraints": {
            "document": _field(CONSTRAINTS.as_posix() if facts.constraints else None, f"{CONSTRAINTS} not found"),
            "items": _field(facts.constraints, f"{CONSTRAINTS} not found, or without items"),
        },
        "task_description": {
            "objective": _field(*fields.objective(facts)),
            "scope": _field(fields.scope(facts), "no step was run"),
            "success_criteria": _items(criteria, "no criterion is defined without steps"),
        },
        "technical_context": {
            "current_state": _field(fields.current_state(facts), "nothing was run"),
            "dependencies": _field(fields.dependencies(facts), facts.missing(LOCK)),
            "constraints": _field(fields.limits(facts), no_params),
        },
        "context_to_preserve": {
            "critical_information": _field(fields.critical_information(facts), facts.missing(LOCK, RUN)),
            "key_decisions": _field(fields.key_decisions(facts), no_params),
            "assumptions": _field(fields.assumptions(facts), no_params),
        },
        "subtask_requirements": {
            "context_inheritance": _field(fields.context_inheritance(facts), no_params),
            "handover_information": _field(fields.handover_information(facts), "no result has been written"),
            "validation_points": _items(points, "nothing to compare"),
        },
        "risk_mitigation": {
            "potential_context_loss_points": _field(fields.loss_points(facts), "none was found"),
            "recovery_procedures": _field(
                fields.recovery_procedures(facts), "nothing has been written that could be lost"
            ),
            "prevention_measures": _field(fields.prevention_measures(facts), "there is nothing yet to protect"),
        },
        "quality_assurance": {
            "pre_task_checklist": _items(before_task(facts, criteria)),
            "post_task_validation": _items(after_task(facts, criteria, points)),
        },
        "mode_transition_notes": {
            "notes": _field(fields.transition(facts), f"{facts.outcome}, and nothing to hand over")
        },
    }


def write_context(root: Path, context: Context) -> None:
    """Write ``context.json`` at the project's root."""
    write_json(root / CONTEXT, context)


def render_markdown(context: Context) -> str:
    """The context as markdown, with the template's headings; checklists as ``- [x]`` and ``- [ ]``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # Markdown: see in_markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # One line of text each: messages of several lines would break a list.
    environment.filters["line"] = lambda value: in_markdown(str(value))
    environment.filters["label"] = lambda key: _LABELS.get(key) or key.replace("_", " ").title()
    environment.filters["verdict"] = _verdict
    text = environment.get_template("context.md.j2").render(context=context)
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def _verdict(item: dict[str, Any]) -> str:
    """The evidence, led by the word that an empty box leaves open: failed, or not known."""
    evidence = str(item["evidence"])
    lead = {True: "", False: "failed: ", None: "not known: "}[item["passed"]]
    return evidence if evidence.startswith("not measured") else lead + evidence


def _field(value: object, why_empty: str) -> Field:
    return {"value": value} if value else {"value": None, "why_empty": why_empty}


def _items(items: list[Item], why_empty: str = "") -> Field:
    return _field([asdict(item) for item in items], why_empty)
