"""What the next task takes over: digests, decisions, assumptions and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zk0.context.facts import LOCK, RUN, SITE, STAGE_FILES, Facts, get
from zk0.digests import digest_file
from zk0.machine.packages import LOCK_FILE


def critical_information(facts: Facts) -> dict[str, Any]:
    """The digests by which everything of this run is found again."""
    found: dict[str, Any] = {"params digest": facts.params_digest}
    found["starting policy digest"] = get(facts.lock, "policy", "digest")
    found["source digests"] = {name: entry.get("digest") for name, entry in facts.sources.items()}
    if facts.run:
        if not facts.finished("federate"):
            found["of an earlier run"] = f"run, dataset and checkpoint digests: {RUN} was not written by this one"
        found["run"] = facts.run.get("run")
        found["base digest"] = get(facts.run, "base", "digest")
        found["dataset digests"] = _digests(facts.run.get("sites"))
        found["checkpoint digests"] = _digests(facts.run.get("checkpoints"))
    return {key: value for key, value in found.items() if value}


def _digests(entries: Any) -> dict[str, Any]:
    return {name: digest for name, entry in (entries or {}).items() if (digest := get(entry, "digest"))}


def key_decisions(facts: Facts) -> list[dict[str, str]]:
    """What was decided, by params or by the run itself, and on what ground."""
    if facts.params is None:
        return []
    federation = facts.params.federation
    decided = [(f"{federation.strategy}, sites weighted by {federation.weighting}", "federation in params.yaml")]
    if base := get(facts.lock, "policy", "source"):
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


def assumptions(facts: Facts) -> list[str]:
    """What the run takes for granted: params that data must fit, and checks that only warned."""
    if facts.params is None:
        return []
    params = facts.params
    notes = [c for c in get(facts.environment, "checks") or [] if not c["passed"] and c["severity"] == "warning"]
    return [
        f"every site has {params.data.fps} frames a second, of those it records or of those taken",
        f"{params.data.held_out:.0%} of each site's episodes are kept from training",
        f"a round needs good replies from {params.federation.min_replies:.0%} of the sites",
        f"the same numbers come only with seed {params.seed}, {params.threads} threads and device "
        f"{params.policy.device}",
        *(f"it works although {c['name']} is not as expected: {c['found']}" for c in notes),
    ]


def context_inheritance(facts: Facts) -> dict[str, str]:
    """What a subtask must start from to be part of the same run."""
    if facts.params is None:
        return {}
    found = {"params": f"params.yaml at {facts.params_digest}", "seed": str(facts.params.seed)}
    if facts.lock:
        found["sources"] = f"{LOCK} at {digest_file(facts.root / LOCK)}"
    if (facts.root / LOCK_FILE).is_file():
        found["packages"] = f"{LOCK_FILE.as_posix()} at {digest_file(facts.root / LOCK_FILE)}"
    if facts.git:
        found["code"] = f"git revision {facts.git}"
    return found


def handover_information(facts: Facts) -> list[str]:
    """The results that the next task finds, with their digests where they have one."""
    found = []
    for stage, names in STAGE_FILES.items():
        for name in names:
            if not (facts.root / name).exists():
                continue
            digest = get(facts.run, "checkpoints", Path(name).name, "digest") if name.startswith("checkpoints") else ""
            age = "" if facts.finished(stage) else " (of an earlier run)"
            found.append(name + (f" at {digest}" if digest else "") + age)
    return [*found, *([SITE] if facts.site else [])]
