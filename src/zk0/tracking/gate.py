"""Whether a challenger may become the champion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

from zk0.evaluation.scores import SITE, UNSEEN, Comparison, IncomparableError, Metric, Scores, compare
from zk0.params import PromotionParams


@dataclass(frozen=True)
class Decision:
    """Whether a challenger may become the champion.

    Attributes:
        passed: Whether it may.
        against: What it was compared with.
        reasons: Every reason against it; empty when it may.
        comparison: The numbers, unless the two could not be compared.
    """

    passed: bool
    against: str
    reasons: tuple[str, ...]
    comparison: Comparison | None

    def content(self) -> dict[str, object]:
        """As plain lists and numbers."""
        return asdict(self)


def decide(challenger: Scores, champion: Scores, params: PromotionParams) -> Decision:
    """Let a challenger pass if it is safe, better than the champion, and worse on no site by more than a margin.

    Better: the one-sided paired test over all sites' tasks. Not worse: on no site did it lose more than
    the margin, as measured. Proof of that from every site at once would be asked in vain: of models that
    gained 20 points on two of seven sites and lost nothing, 100 scenes each, 18 in 100 could give it.

    Unseen tasks, such as those of an owner who has left, refuse only where they are shown to be worse
    by the same test: a federation learns nothing of them, but it may forget what they stand for.

    Args:
        challenger: The new model's evaluation.
        champion: That of the model it would replace, or of the base while there is no champion.
        params: Metric, margin and confidence.
    """
    reasons = []
    if params.require_safe and not challenger.safe:
        which = ", ".join(challenger.failed) or "no check was made"
        reasons.append(f"the safety check failed: {which}")
    if challenger.digest == champion.digest:
        reasons.append(f"it is the same model as {champion.label}")
    comparison = None
    try:
        comparison = compare(challenger, champion, params.metric, params.confidence)
    except IncomparableError as error:
        reasons.append(str(error))
    else:
        reasons += _shortcomings(challenger, champion, comparison, params)
    return Decision(not reasons, champion.label, tuple(reasons), comparison)


def _shortcomings(challenger: Scores, champion: Scores, comparison: Comparison, params: PromotionParams) -> list[str]:
    reasons = []
    told = partial(in_words, params.metric)
    for task, role in challenger.roles.items():
        if role == SITE and task in comparison.left_out:
            reasons.append(f"site {task} cannot be compared: {comparison.left_out[task]}")
    if SITE not in comparison.overall:
        return [*reasons, "no site's task could be compared"]
    overall = comparison.overall[SITE]
    if overall.p_better > 1 - params.confidence:
        reasons.append(
            f"not shown to be better than {champion.label} on the sites' tasks: gain in {params.metric} "
            f"{told(overall.value)}, at least {told(overall.lower_bound)} at {params.confidence:.0%} confidence "
            f"(p = {overall.p_better:.2g})"
        )
    for task, found in comparison.tasks.items():
        if found.role == SITE and found.gain.value < -params.site_margin:
            reasons.append(
                f"site {task} loses more than promotion.site_margin {told(params.site_margin, signed=False)}: gain "
                f"{told(found.gain.value)} on {found.scenes} scenes, at most {told(found.gain.upper_bound)} at "
                f"{params.confidence:.0%} confidence"
            )
    unseen = comparison.overall.get(UNSEEN)
    if unseen and unseen.p_worse < 1 - params.confidence:
        reasons.append(
            f"worse than {champion.label} on the unseen tasks: gain in {params.metric} {told(unseen.value)}, at most "
            f"{told(unseen.upper_bound)} at {params.confidence:.0%} confidence (p = {unseen.p_worse:.2g})"
        )
    return reasons


def in_words(metric: Metric, value: float, signed: bool = True) -> str:
    """A difference in a metric's unit.

    >>> in_words("success_rate", 0.125), in_words("action_error_deg", 0.25, signed=False)
    ('+12.5 points', '0.25 degrees')
    """
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} points" if metric == "success_rate" else f"{value:{sign}.2f} degrees"
