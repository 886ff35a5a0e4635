"""What the records of a deployment, and of a site, add to their task context."""

from __future__ import annotations

from typing import Any

from zk0.context.criteria import Item
from zk0.context.facts import SITE, Facts, get


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


def site_criteria(facts: Facts) -> list[Item]:
    """What makes a site's part in a federation over a network a success."""
    if facts.flow != "client":
        return []
    names = ("the site is connected", "the site judged what came of every round it trained in", "no message failed")
    if facts.site is None:
        return [Item(name, None, f"not measured: {SITE} was not written by this run") for name in names]
    rounds, failures = facts.site.get("rounds") or [], facts.site.get("failures") or []
    judged = sum(bool(one.get("judged")) for one in rounds)
    shown = (str(facts.site.get("state")), f"{judged} of {len(rounds)} rounds", "; ".join(failures[-3:]) or "none did")
    held = (bool(facts.site.get("connected")), judged == len(rounds) > 0, not failures)
    return [Item(name, passed, text) for name, passed, text in zip(names, held, shown, strict=True)]


def site_recovery(facts: Facts) -> list[str]:
    """A site goes on by one command; joining that was refused left nothing."""
    if not (facts.root / "state").is_dir() and facts.failed:
        return ["nothing was joined, and nothing is left of it: mend what the error names and join again"]
    name = facts.root.name
    return [
        f"`zk0 client start {name}`, from the project's root, starts the site again; it takes part in the next round",
        f"`zk0 client status {name}` shows whether it runs, what it did last, and where its logs are",
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
