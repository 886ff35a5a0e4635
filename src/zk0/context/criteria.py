"""What makes a run a success, and where one stage must have started from what another left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zk0.context.facts import EVALUATION, LOCK, RUN, STAGE_FILES, Facts, get
from zk0.params import Params

_UNKNOWN = "not measured: the result has no value for it"


@dataclass(frozen=True)
class Item:
    """Something that holds, does not, or is not known (None), and what shows it."""

    item: str
    passed: bool | None
    evidence: str


def success_criteria(facts: Facts) -> list[Item]:
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


def _training_criteria(facts: Facts, params: Params) -> list[Item]:
    early = ", or stopped early" if params.federation.stop_after else ""
    rounds = f"{params.federation.rounds} federated rounds completed{early}"
    lower = "held-out loss of the best round lower than at the start"
    if reason := facts.unread.get("federate"):
        return [Item(name, None, f"not measured: {reason}") for name in (rounds, lower)]
    done, best, start = (get(facts.run, k) for k in ("rounds", "best_held_out_loss", "start_held_out_loss"))
    known = best is not None and start is not None
    stopped = get(facts.run, "stopped")
    complete = bool(done and (done >= params.federation.rounds or stopped))
    evidence = f"{done} rounds" + (f"; {stopped}" if stopped else "")
    return [
        Item(rounds, complete if done else None, evidence if done else _UNKNOWN),
        Item(lower, best < start if known else None, f"{best:.4f}, was {start:.4f}" if known else _UNKNOWN),
    ]


def _evaluation_criteria(facts: Facts, params: Params) -> list[Item]:
    errors = "global action error lower than base on every site"
    rates = "global success rate on the sites' tasks higher than base"
    safety = "global model passes the safety check"
    # Only the embedded arm can be rolled out.
    rolled_out = params.evaluation.rollouts and any(s.startswith("sim:") for s in params.data.sites.values())
    names = [errors, *([rates] if rolled_out else []), safety]
    if reason := facts.unread.get("evaluate"):
        return [Item(name, None, f"not measured: {reason}") for name in names]
    tasks = [task for task in (get(facts.evaluation, "tasks") or {}).values() if get(task, "role") == "site"]
    pairs = [(get(t, "global", "action_error_deg"), get(t, "base", "action_error_deg")) for t in tasks]
    known = [(new, old) for new, old in pairs if new is not None and old is not None]
    better = sum(new < old for new, old in known)
    items = [Item(errors, better == len(pairs) if known else None, f"{better} of {len(pairs)}" if known else _UNKNOWN)]
    if rolled_out:
        base, new = (get(facts.evaluation, "overall", m, "success_rate_seen") for m in ("base", "global"))
        known_rates = base is not None and new is not None
        shown = f"{new:.0%}, base {base:.0%}" if known_rates else _UNKNOWN
        items.append(Item(rates, new > base if known_rates else None, shown))
    passed = get(facts.evaluation, "safety", "global", "passed")
    failing = [c["name"] for c in get(facts.evaluation, "safety", "global", "checks") or [] if not c["passed"]]
    beyond = f"not within its limits: {', '.join(dict.fromkeys(failing))}"
    shown = _UNKNOWN if passed is None else "every check" if passed else beyond
    return [*items, Item(safety, passed, shown)]


def validation_points(facts: Facts) -> list[Item]:
    """Where one stage's result must be what the next one started from."""
    run, judgement = facts.own_run, facts.own_evaluation
    revisions = {get(site, "revision") for site in (get(run, "sites") or {}).values()}
    resolved = {entry.get("digest") for entry in facts.sources.values()}
    known = bool(revisions and resolved)
    best, judged = get(run, "checkpoints", "best", "digest"), get(judgement, "models", "global", "digest")
    base, start = get(run, "base", "digest"), get(facts.lock, "policy", "digest")
    finished = [stage for stage in STAGE_FILES if facts.finished(stage)]
    kept = f"missing: {', '.join(facts.lost)}" if facts.lost else f"of {', '.join(finished) or 'no stage'}: all there"
    count = f"{len(revisions & resolved)} of {len(revisions)}" if known else facts.missing(RUN, LOCK)
    return [
        Item("finished stages left their results", not facts.lost if finished else None, kept),
        _same("the run started from the resolved policy", base, start, facts.missing(RUN, LOCK)),
        Item("every site trained on a resolved source", revisions <= resolved if known else None, count),
        _same("the evaluated model is the run's best", judged, best, facts.missing(EVALUATION, RUN)),
    ]


def _same(name: str, one: Any, other: Any, unknown: str) -> Item:
    if not one or not other:
        return Item(name, None, unknown)
    return Item(name, one == other, str(one) if one == other else f"{one} is not {other}")
