"""Is the global model better than the base? Counts, intervals and sentences that claim no more.

Action error in degrees and closed-loop success decide. Held-out loss is shown but does not decide:
each model's loss is in units of its own normalisation statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from zk0.records.results import Evaluation, Pair, Safety
from zk0.reporting import format as fmt
from zk0.reporting.changes import Change, Success, pooled_success

Level = Literal["better", "worse", "mixed", "unknown"]
# What a failed safety check asks for, by how the checks' names begin.
_WHAT_NEXT = {
    "steps cut": "It asks for longer steps than the sites' arms ever took, as a policy does that was trained too "
    "little, or on too few demonstrations: more rounds, and more episodes of the tasks that do worst.",
    "targets outside the build": "It sends joints to where an SO-100 cannot go: see that the named joint's calibration "
    "is sound at every site, in results/data.md, before training longer.",
    "jerk": "Its targets are restless. More rounds and more episodes calm them most; what else was tried is in "
    "docs/models.md, with figures.",
}


def what_next(safety: Safety) -> list[str]:
    """What to do about the checks that a model failed, a sentence for each kind."""
    return [text for kind, text in _WHAT_NEXT.items() if any(name.startswith(kind) for name in safety.failed)]


@dataclass(frozen=True)
class Verdict:
    """The report's first words: what came of the run, and why."""

    level: Level
    headline: str
    sentences: list[str]
    caveats: list[str]
    error: Change
    loss: Change
    seen: Success
    unseen: Success


def judge(evaluation: Evaluation, best_round: int | None = None) -> Verdict:
    """Compare the two models on the sites' tasks and on the unseen ones.

    Args:
        evaluation: Both models' scores.
        best_round: The round that the run chose by held-out loss, if it chose one.
    """
    sites, unseen_tasks = evaluation.with_role("site"), evaluation.with_role("unseen")
    errors = _measured(Change(t.base.action_error_deg, t.trained.action_error_deg) for t in sites.values())
    losses = _measured(Change(t.base.held_out_loss, t.trained.held_out_loss) for t in sites.values())
    better = sum(c.delta < 0 for c in errors if c.delta is not None)
    seen, unseen = pooled_success(sites), pooled_success(unseen_tasks)
    error = _mean(errors)
    chosen = best_round is not None and evaluation.models.trained.round == best_round
    sentences = [_error_sentence(error, better, len(errors))]
    sentences.append(_success_sentence("On the sites' own tasks", seen))
    if unseen_tasks:
        sentences.append(_success_sentence(f"On {_tasks(len(unseen_tasks))} that no site has", unseen))
    sentences.append(_safety_sentence(evaluation.safety))
    safe = evaluation.safety.trained.passed
    return Verdict(
        level=_level(better, len(errors), error, seen, unseen, safe),
        headline=_headline(better, len(errors), seen, unseen, safe),
        sentences=sentences,
        caveats=_caveats(seen, unseen, chosen),
        error=error,
        loss=_mean(losses),
        seen=seen,
        unseen=unseen,
    )


def _measured(changes: Iterable[Change]) -> list[Change]:
    """Those with a value for both models."""
    return [change for change in changes if change.delta is not None]


def _mean(changes: list[Change]) -> Change:
    """The plain mean over sites, for each model."""
    if not changes:
        return Change(None, None)
    return Change(sum(c.base or 0 for c in changes) / len(changes), sum(c.trained or 0 for c in changes) / len(changes))


def _level(better: int, sites: int, error: Change, seen: Success, unseen: Success, safe: bool) -> Level:
    """The verdict in a word: better or worse only when nothing that was measured contradicts it."""
    if 0 < better < sites:
        return "mixed"
    by_error = 0
    if sites:
        by_error = 1 if better == sites else -1 if (error.delta or 0) > 0 else 0
    signs = {by_error, seen.direction, unseen.direction} - {0}
    if not signs:
        return "unknown"
    if -1 not in signs:
        # Whatever else it does, a model that may not go near an arm is not simply better.
        return "better" if safe else "mixed"
    return "mixed" if 1 in signs else "worse"


def _headline(better: int, sites: int, seen: Success, unseen: Success, safe: bool) -> str:
    """All measures in one line, the good and the bad."""
    words = {1: "more successful", 0: "success not clearly different", -1: "less successful"}
    success = "success not measured" if seen.delta is None else words[seen.direction]
    if not sites:
        headline = f"Action error not measured, {success}"
    else:
        opposed = (seen.direction > 0 and not better) or (seen.direction < 0 and better)
        joint = "but" if opposed else "and" if seen.direction else "with"
        headline = f"Better than the base on {better} of {_sites(sites)} by action error, {joint} {success}"
    if seen.direction:
        headline += " on the sites' tasks"
    if unseen.direction:
        headline += f"; {words[unseen.direction]} on unseen tasks"
    return headline if safe else f"{headline}; it fails the safety check"


def _error_sentence(error: Change, better: int, sites: int) -> str:
    """What happened to the action error."""
    if not sites or error.delta is None:
        return "Action error on held-out recordings was not measured."
    counted = f"On held-out recordings the global model's action error is lower than the base's on {better} of "
    if not error.delta:
        return f"{counted}{_sites(sites)}; the mean over sites stays at {fmt.degrees(error.base)}."
    verb = "falls" if error.delta < 0 else "rises"
    change = "" if error.relative is None else f" ({fmt.signed_percent(error.relative)})"
    return (
        f"{counted}{_sites(sites)}; the mean over sites {verb} from {fmt.degrees(error.base)} "
        f"to {fmt.degrees(error.trained)}{change}."
    )


def _success_sentence(where: str, success: Success) -> str:
    """What happened to closed-loop success, and whether the intervals tell the models apart."""
    if success.base is None or success.trained is None:
        return f"{where}, closed-loop success was not measured{f': {success.why_not}' if success.why_not else ''}."
    left_out = ", ".join(success.not_driven)
    judged = "overlap, so they do not tell the models apart" if success.overlap else "do not overlap"
    paired = f"; {success.paired.text()}" if success.paired else ""
    return (
        f"{where} it succeeds in {success.trained.text()}, the base in {success.base.text()}; "
        f"the intervals {judged}{paired}."
        + (f" Success on {left_out} was not measured: {success.why_not}." if left_out else "")
    )


def _safety_sentence(safety: Pair[Safety]) -> str:
    """Whether the global model may go near an arm."""
    failed = [check.name for check in safety.trained.checks if not check.passed]
    if safety.trained.passed and not failed:
        return "It passes the safety check."
    which = f": {', '.join(failed)}" if failed else ""
    return f"It fails the safety check{which}. Do not run it on a real arm."


def _caveats(seen: Success, unseen: Success, chosen: bool) -> list[str]:
    """What the numbers do not say."""
    caveats = ["One training run with one seed: how results vary from run to run is not measured here."]
    if seen.delta is not None or unseen.delta is not None:
        caveats.append(
            "Intervals count rollouts only, and leave out that both models met the same scenes; "
            "pooled ones treat all tasks' rollouts alike."
        )
    if chosen:
        caveats.append(
            "The round judged here was chosen by its loss on the same held-out recordings, which favours the "
            "global model's action error and loss a little; success was not part of that choice."
        )
    caveats.append("Action errors carry no interval; small differences may be chance.")
    caveats.append("Losses are in units of each model's own statistics; compare the models in degrees and by success.")
    return caveats


def _sites(number: int) -> str:
    return f"{number} site{'' if number == 1 else 's'}"


def _tasks(number: int) -> str:
    return "the one task" if number == 1 else f"the {number} tasks"
