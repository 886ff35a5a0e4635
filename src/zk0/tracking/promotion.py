"""Promoting a version to champion, and back: decided by the gate, recorded, in one transaction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import xxhash
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import TypeAdapter

from zk0.evaluation.scores import SITE, UNSEEN, Comparison, IncomparableError, Metric, Scores, compare
from zk0.files import read_json, write_json
from zk0.params import PromotionParams
from zk0.records.results import Evaluation
from zk0.tracking import TrackingError, metric_names
from zk0.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    aliases,
    find_version,
    kept_file,
    label,
    read_evaluation,
    version_checkpoint,
)
from zk0.tracking.store import Transaction, opened, transaction

RECORD = Path("results/promotion.json")
PROMOTED, REFUSED, FORCED = "promoted", "refused", "forced"


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


@dataclass(frozen=True)
class Promotion:
    """What came of an attempt to promote a version.

    Attributes:
        version: Which.
        outcome: ``promoted``, ``refused`` or ``forced``.
        before: The champion until then.
        decision: The gate's, with every reason against the version.
    """

    version: int
    outcome: str
    before: int | None
    decision: Decision

    @property
    def promoted(self) -> bool:
        """Whether it is the champion now."""
        return self.outcome != REFUSED

    def content(self) -> dict[str, object]:
        """As plain lists and numbers."""
        facts: dict[str, object] = {"version": self.version, "outcome": self.outcome, "champion_before": self.before}
        return facts | self.decision.content()


def promote(root: Path, model_name: str, version: int, params: PromotionParams, force: bool = False) -> Promotion:
    """Make a version the champion, if the gate lets it pass.

    Args:
        root: The project's root.
        model_name: The registered model.
        version: Which of its versions.
        params: What the gate asks for.
        force: Promote it whatever the gate says; its reasons are recorded all the same.

    Raises:
        TrackingError: There is no such version, its checkpoint is gone, it is the champion already,
            or it was never evaluated and is not forced.
    """
    root = root.resolve()
    with opened(root) as client:
        found = find_version(client, model_name, version)
        version_checkpoint(client, root, found)
        if (aliases(client, model_name) or {}).get(CHAMPION) == version:
            raise TrackingError(f"'{model_name}', version {version}, is the champion already")
        evaluation = read_evaluation(client, root, found, needed=not force)
        with transaction(client, model_name) as changes:
            return _settle(changes, root, found, evaluation, params, force)


def read_promotion(root: Path, model_name: str, version: int) -> Promotion:
    """What was decided on a version last, from its run's files.

    Raises:
        TrackingError: There is no such version, or nothing was decided on it.
    """
    root = root.resolve()
    with opened(root) as client:
        file = kept_file(client, root, find_version(client, model_name, version), RECORD)
    if not file.is_file():
        raise TrackingError(f"nothing was decided on '{model_name}', version {version}; `zk0 promote {version}` does")
    found = read_json(file)
    number, outcome, before = (found.pop(name) for name in ("version", "outcome", "champion_before"))
    return Promotion(number, outcome, before, TypeAdapter(Decision).validate_python(found))


def demote(root: Path, model_name: str) -> tuple[int, int | None]:
    """Give the champion's place back to the version that had it before.

    Returns:
        The version that was champion, and the one that is now; None if there was none before.

    Raises:
        TrackingError: There is no champion, or the one before is gone.
    """
    root = root.resolve()
    with opened(root) as client:
        champion = (aliases(client, model_name) or {}).get(CHAMPION)
        if champion is None:
            raise TrackingError(f"'{model_name}' has no champion; `zk0 promote VERSION` makes one")
        noted = find_version(client, model_name, champion).tags.get(metric_names.CHAMPION_BEFORE)
        before = int(noted) if noted else None
        if before is not None:
            version_checkpoint(client, root, find_version(client, model_name, before))
        with transaction(client, model_name) as changes:
            changes.tag(champion, {metric_names.CHAMPION_BEFORE: None})
            changes.point(CHAMPION, before)
    return champion, before


def settle_challenger(
    changes: Transaction, root: Path, version: ModelVersion, evaluation: Evaluation, params: PromotionParams
) -> Promotion | None:
    """Decide on a version, once for each evaluation of it; None if that was done or it is no challenger.

    A champion that was demoted by hand so stays demoted.
    """
    known = aliases(changes.client, changes.name) or {}
    number = int(version.version)
    if known.get(CHALLENGER) != number or known.get(CHAMPION) == number:
        return None
    present = changes.client.get_model_version(changes.name, version.version)
    if present.tags.get(metric_names.PROMOTION_BASIS) == _basis(evaluation, params):
        return None
    return _settle(changes, root, version, evaluation, params)


def _settle(
    changes: Transaction,
    root: Path,
    version: ModelVersion,
    evaluation: Evaluation | None,
    params: PromotionParams,
    force: bool = False,
) -> Promotion:
    client, number = changes.client, int(version.version)
    before = (aliases(client, changes.name) or {}).get(CHAMPION)
    if evaluation is None:
        decision = Decision(False, "nothing", ("it was never evaluated",), None)
    else:
        decision = _decide(client, root, version, before, evaluation, params)
    outcome = PROMOTED if decision.passed else FORCED if force else REFUSED
    promotion = Promotion(number, outcome, before, decision)
    tags = {
        metric_names.PROMOTION: outcome,
        metric_names.PROMOTION_AGAINST: decision.against,
        metric_names.PROMOTION_REASONS: "; ".join(decision.reasons) or "none",
    }
    basis = _basis(evaluation, params) if evaluation is not None else None
    changes.tag(number, {**tags, metric_names.PROMOTION_BASIS: basis})
    changes.tag_run(str(version.run_id), tags)
    _keep_record(changes, root, version, promotion)
    if promotion.promoted:
        changes.tag(number, {metric_names.CHAMPION_BEFORE: str(before) if before else None})
        changes.point(CHAMPION, number)
    return promotion


def _decide(
    client: MlflowClient,
    root: Path,
    version: ModelVersion,
    champion: int | None,
    evaluation: Evaluation,
    params: PromotionParams,
) -> Decision:
    challenger = Scores.of(evaluation, "global", label(version))
    base = Scores.of(evaluation, "base", "the base policy")
    if champion is None:
        return decide(challenger, base, params)
    holder = find_version(client, version.name, champion)
    # A run that started from the champion judged it beside the new model, on the very same scenes.
    if holder.tags.get(metric_names.DIGEST) == base.digest:
        return decide(challenger, Scores.of(evaluation, "base", label(holder)), params)
    own = read_evaluation(client, root, holder, needed=False)
    if own is None:
        reason = f"the champion, {label(holder)}, was never evaluated: `zk0 model show {champion}` leads back to it"
        return Decision(False, label(holder), (reason,), None)
    return decide(challenger, Scores.of(own, "global", label(holder)), params)


def _basis(evaluation: Evaluation, params: PromotionParams) -> str:
    """Names what a decision was made on, besides the champion."""
    content = evaluation.content()
    judged = {part: content[part] for part in ("models", "tasks", "safety")}
    return xxhash.xxh3_128_hexdigest(json.dumps([judged, params.model_dump()], sort_keys=True).encode())


def _keep_record(changes: Transaction, root: Path, version: ModelVersion, promotion: Promotion) -> None:
    """Write the decision among the run's files, numbers and all."""
    file = kept_file(changes.client, root, version, RECORD)
    before = read_json(file) if file.is_file() else None
    write_json(file, promotion.content())
    if before is None:
        changes.undo.callback(file.unlink)
    else:
        changes.undo.callback(write_json, file, before)


def decide(challenger: Scores, champion: Scores, params: PromotionParams) -> Decision:
    """Let a challenger pass if it is safe, better than the champion, and worse on no site by more than a margin.

    Better: the one-sided paired test over all sites' tasks. Not worse: for every site, the one-sided
    bound on what it loses stays within the margin. Passing takes all of these tests at once, which
    keeps the error of the whole at that of each: Berger, "Multiparameter Hypothesis Testing and
    Acceptance Sampling", Technometrics 24(4), 1982. A margin that few scenes cannot resolve refuses.

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
        if found.role == SITE and found.gain.lower_bound < -params.site_margin:
            reasons.append(
                f"site {task} may lose more than promotion.site_margin {told(params.site_margin, signed=False)}: gain "
                f"{told(found.gain.value)}, at least {told(found.gain.lower_bound)} at {params.confidence:.0%} "
                f"confidence on {found.scenes} scenes"
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
