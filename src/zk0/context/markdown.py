"""The task context as markdown, in the template's wording."""

from __future__ import annotations

from typing import Any

from zk0.words import in_markdown

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
    return in_markdown(str(value))
