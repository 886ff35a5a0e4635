"""The template's two checklists: before the task, and after it."""

from __future__ import annotations

from collections.abc import Iterable

from zk0.context.criteria import Item
from zk0.context.facts import CONSTRAINTS, ENVIRONMENT, LOCK, Facts, get
from zk0.params import PARAMS_FILE


def before_task(facts: Facts, criteria: list[Item]) -> list[Item]:
    """Whether the run started from checked ground: environment, context, criteria and dependencies."""
    checks = get(facts.environment, "checks") or []
    failing = [c["name"] for c in checks if not c["passed"] and c["severity"] == "error"]
    if not checks:
        verified = f"{ENVIRONMENT} not found, or from before this run"
    else:
        verified = f"not passed: {', '.join(failing)}" if failing else f"{len(checks)} checks, none failed"
    needed: dict[str, object] = {
        PARAMS_FILE.name: facts.params,
        LOCK: facts.lock,
        ENVIRONMENT: facts.environment,
        CONSTRAINTS.name: facts.constraints,
    }
    if facts.flow == "deploy":  # it resolves no sources
        del needed[LOCK]
    absent = [name for name, content in needed.items() if not content]
    captured = f"nothing of this run in {', '.join(absent)}" if absent else f"read from {', '.join(needed)}"
    wanted = {**facts.params.data.sites, **facts.params.data.unseen} if facts.params else {}
    resolved = [name for name in wanted if get(facts.sources.get(name), "digest")]
    identified = len(resolved) == len(wanted) and bool(get(facts.lock, "policy", "digest"))
    known = bool(facts.lock and wanted)
    count = f"{len(resolved)} of {len(wanted)} sources by digest{', and the starting policy' if identified else ''}"
    return [
        Item("All constraints verified", not failing if checks else None, verified),
        Item("Context fully captured", not absent, captured),
        Item("Success criteria defined", bool(criteria), f"{len(criteria)} criteria"),
        Item("Dependencies identified", identified if known else None, count if known else facts.missing(LOCK)),
    ]


def after_task(facts: Facts, criteria: list[Item], points: list[Item]) -> list[Item]:
    """Whether the run kept what it promised: criteria, digests, report and quality."""
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


def _all(values: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is or there are none, else True."""
    kept = list(values)
    return False if False in kept else True if kept and None not in kept else None


def _tally(items: list[Item]) -> str:
    """How many hold, and which do not or are not known."""
    text = f"{sum(bool(i.passed) for i in items)} of {len(items)}"
    for label, verdict in (("not met", False), ("not known", None)):
        if names := [i.item for i in items if i.passed is verdict]:
            text += f"; {label}: {', '.join(names)}"
    return text
