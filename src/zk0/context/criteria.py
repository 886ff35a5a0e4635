"""What holds, what does not, and what is not known: success criteria, validation points and the two checklists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zk0.context.facts import CONSTRAINTS, ENVIRONMENT, EVALUATION, LOCK, REPORT, RUN, SITE, STAGE_FILES, Facts
from zk0.params import PARAMS_FILE, Params

_UNKNOWN = "not measured: the result has no value for it"


@dataclass(frozen=True)
class Item:
    """Something that holds, does not, or is not known (None), and what shows it."""

    item: str
    passed: bool | None
    evidence: str


def success_criteria(facts: Facts) -> list[Item]:
    """What makes the run a success, and whether it was; None where it has not been measured."""
    done = sum(step.state in ("Completed", "Unchanged") for step in facts.stages)
    criteria = []
    if facts.stages:
        shown = f"{done} of {len(facts.stages)} steps" + (f", and then: {facts.error}" if facts.error else "")
        criteria.append(Item("every step completed", not facts.failed and facts.error is None, shown))
    trains = facts.flow in ("federate", "train") or facts.step_of("federate") or facts.step_of("evaluate")
    if facts.params and trains:
        criteria += [*_training_criteria(facts, facts.params), *_evaluation_criteria(facts, facts.params)]
    if facts.flow == "deploy":
        criteria += _deployment_criteria(facts)
    if facts.flow == "client":
        criteria += _site_criteria(facts)
    return criteria


def _training_criteria(facts: Facts, params: Params) -> list[Item]:
    early = ", or stopped early" if params.federation.stop_after else ""
    rounds = f"{params.federation.rounds} federated rounds completed{early}"
    lower = "held-out loss of the best round lower than at the start"
    run = facts.own_run
    if run is None:
        return _unmeasured((rounds, lower), facts.unread["federate"])
    complete = run.rounds >= params.federation.rounds or bool(run.stopped)
    evidence = f"{run.rounds} rounds" + (f"; {run.stopped}" if run.stopped else "")
    best, start = run.best_held_out_loss, run.start_held_out_loss
    items = [Item(rounds, complete, evidence) if run.rounds else Item(rounds, None, _UNKNOWN)]
    if best is None or start is None:
        return [*items, Item(lower, None, _UNKNOWN)]
    return [*items, Item(lower, best < start, f"{best:.4f}, was {start:.4f}")]


def _evaluation_criteria(facts: Facts, params: Params) -> list[Item]:
    errors = "global action error lower than base on every site"
    rates = "global success rate on the sites' tasks higher than base"
    safety = "global model passes the safety check"
    # Only the embedded arm can be rolled out.
    rolled_out = params.evaluation.rollouts and any(s.startswith("sim:") for s in params.data.sites.values())
    evaluation = facts.own_evaluation
    if evaluation is None:
        return _unmeasured((errors, *([rates] if rolled_out else []), safety), facts.unread["evaluate"])
    pairs = [(t.trained.action_error_deg, t.base.action_error_deg) for t in evaluation.with_role("site").values()]
    known = [(new, old) for new, old in pairs if new is not None and old is not None]
    better = sum(new < old for new, old in known)
    items = [Item(errors, better == len(pairs) if known else None, f"{better} of {len(pairs)}" if known else _UNKNOWN)]
    if rolled_out:
        base, new = evaluation.overall.base.success_rate_seen, evaluation.overall.trained.success_rate_seen
        if base is None or new is None:
            items.append(Item(rates, None, _UNKNOWN))
        else:
            items.append(Item(rates, new > base, f"{new:.0%}, base {base:.0%}"))
    judged = evaluation.safety.trained
    beyond = f"not within its limits: {', '.join(dict.fromkeys(judged.failed))}"
    return [*items, Item(safety, judged.passed, "every check" if judged.passed else beyond)]


def _unmeasured(names: Iterable[str], reason: str) -> list[Item]:
    return [Item(name, None, f"not measured: {reason}") for name in names]


def _deployment_criteria(facts: Facts) -> list[Item]:
    """What makes a deployment a success."""
    checks = {check.name: check.passed for check in facts.deployed("health").checks}
    needs = {need.name: need.fits for need in facts.deployed("resources").needs}
    return [
        _none_fails("every service answers", {n: held for n, held in checks.items() if n.startswith("service")}),
        _none_fails("every certificate lasts", {n: held for n, held in checks.items() if n.startswith("certificate")}),
        _none_fails("memory, disk and GPU suffice", needs),
    ]


def _none_fails(item: str, verdicts: dict[str, bool]) -> Item:
    if not verdicts:
        return Item(item, None, "not checked")
    failing = [name for name, held in verdicts.items() if not held]
    shown = f"not: {', '.join(failing)}" if failing else f"{len(verdicts)} of {len(verdicts)}"
    return Item(item, not failing, shown)


def _site_criteria(facts: Facts) -> list[Item]:
    """What makes a site's part in a federation over a network a success."""
    names = ("the site is connected", "the site judged what came of every round it trained in", "no message failed")
    site = facts.site
    if site is None:
        return _unmeasured(names, f"{SITE} was not written by this run")
    judged, trained = sum(one.judged for one in site.rounds), len(site.rounds)
    return [
        Item(names[0], site.connected, site.state),
        Item(names[1], judged == trained > 0, f"{judged} of {trained} rounds"),
        Item(names[2], not site.failures, "; ".join(site.failures[-3:]) or "none did"),
    ]


def validation_points(facts: Facts) -> list[Item]:
    """Where one stage's result must be what the next one started from."""
    run, judgement = facts.own_run, facts.own_evaluation
    revisions = {site.revision for site in run.sites.values()} if run else set()
    resolved = {entry["digest"] for entry in facts.sources.values()}
    known = bool(revisions and resolved)
    finished = [stage for stage in STAGE_FILES if facts.finished(stage)]
    kept = f"missing: {', '.join(facts.lost)}" if facts.lost else f"of {', '.join(finished) or 'no stage'}: all there"
    count = f"{len(revisions & resolved)} of {len(revisions)}" if known else facts.missing(RUN, LOCK)
    return [
        Item("finished stages left their results", not facts.lost if finished else None, kept),
        _same(
            "the run started from the resolved policy",
            run and run.base.digest,
            facts.start and facts.start["digest"],
            facts.missing(RUN, LOCK),
        ),
        Item("every site trained on a resolved source", revisions <= resolved if known else None, count),
        _same(
            "the evaluated model is the run's best",
            judgement and judgement.models.trained.digest,
            run and run.checkpoints.best.digest,
            facts.missing(EVALUATION, RUN),
        ),
    ]


def _same(name: str, one: Any, other: Any, unknown: str) -> Item:
    if not one or not other:
        return Item(name, None, unknown)
    return Item(name, one == other, str(one) if one == other else f"{one} is not {other}")


def before_task(facts: Facts, criteria: list[Item]) -> list[Item]:
    """Whether the run started from checked ground: environment, context, criteria and dependencies."""
    checks = facts.environment.checks if facts.environment else ()
    failing = [check.name for check in facts.environment.failing("error")] if facts.environment else []
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
    resolved = [name for name in wanted if name in facts.sources]
    identified = len(resolved) == len(wanted) and facts.start is not None
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
    if facts.step_of("report") is None:
        documented = Item("Documentation updated", None, "the report stage was not run")
    else:
        written = facts.finished("report") and (facts.root / REPORT).is_file()
        evidence = f"{REPORT} and context.json" if written else f"{REPORT} was not written"
        documented = Item("Documentation updated", written, evidence)
    quality = [c for c in criteria if c.item.startswith(("every step", "global model passes"))]
    return [
        _tally("Success criteria met", criteria),
        _tally("Context preserved", points),
        documented,
        _tally("Quality standards maintained", quality),
    ]


def _tally(name: str, items: list[Item]) -> Item:
    """Holds if all do; not known if one is not or there are none. How many hold, and which do not or are not known."""
    verdicts = [item.passed for item in items]
    held = False if False in verdicts else True if verdicts and None not in verdicts else None
    text = f"{sum(verdict is True for verdict in verdicts)} of {len(items)}"
    for label, verdict in (("not met", False), ("not known", None)):
        if names := [item.item for item in items if item.passed is verdict]:
            text += f"; {label}: {', '.join(names)}"
    return Item(name, held, text)
