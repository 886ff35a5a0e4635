"""What a deployment's record adds to its task context."""

from __future__ import annotations

from typing import Any

from zk0.context.criteria import Item
from zk0.context.facts import Facts, get


def deployment_criteria(facts: Facts) -> list[Item]:
    """What makes a deployment a success."""
    if facts.flow != "deploy":
        return []
    checks = _last(facts, "health checks", "facts", "checks")
    needs = _last(facts, "resource allocation", "facts", "needs")
    certificates = None if checks is None else [c for c in checks if c["name"].startswith("certificate")]
    services = None if checks is None else [c for c in checks if c["name"].startswith("service")]
    return [
        _judged("every service answers", services, "name", "passed"),
        _judged("every certificate lasts", certificates, "name", "passed"),
        _judged("memory, disk and GPU suffice", needs, "name", "fits"),
    ]


def deployment_decisions(facts: Facts) -> list[dict[str, str]]:
    """Risky settings that were kept."""
    risks = _last(facts, "configuration review", "facts", "risks") or []
    return [{"decision": f"keep {risk['setting']}", "why": f"not refused, although {risk['why']}"} for risk in risks]


def deployment_recovery(facts: Facts) -> list[str]:
    """How a deployment comes back."""
    return [
        "`zk0 deploy` starts what does not run, and changes nothing else",
        "`zk0 restore FILE` puts keys, sites, states and runs back from a file of `zk0 backup`",
    ]


def _last(facts: Facts, *keys: str) -> Any:
    """Part of the record, if this run made it."""
    return get(facts.deployment, *keys) if facts.finished(keys[0]) else None


def _judged(item: str, entries: list[dict[str, Any]] | None, name: str, verdict: str) -> Item:
    if not entries:
        return Item(item, None, "not checked")
    failing = [entry[name] for entry in entries if not entry[verdict]]
    shown = f"not: {', '.join(failing)}" if failing else f"{len(entries)} of {len(entries)}"
    return Item(item, not failing, shown)
