"""Promoting a version to champion, and back: decided by the gate, recorded, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import TypeAdapter

from zk0.digests import quick_digest
from zk0.evaluation.scores import Scores
from zk0.files import read_json, write_json
from zk0.params import PromotionParams
from zk0.records.results import Evaluation
from zk0.tracking import TrackingError, metric_names
from zk0.tracking.gate import Decision, decide
from zk0.tracking.headline import write_headline
from zk0.tracking.metric_names import FORCED, PROMOTED, REFUSED
from zk0.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    PROMOTION_RECORD,
    aliases,
    find_version,
    kept_file,
    label,
    read_evaluation,
    version_checkpoint,
)
from zk0.tracking.store import Transaction, opened, transaction


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
        file = kept_file(client, root, find_version(client, model_name, version), PROMOTION_RECORD)
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
            for number in (champion, before):
                if number is not None:
                    write_headline(changes, root, find_version(client, model_name, number))
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
        if before is not None:
            write_headline(changes, root, find_version(client, changes.name, before))
    write_headline(changes, root, version)
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
    return quick_digest([judged, params.model_dump()])


def _keep_record(changes: Transaction, root: Path, version: ModelVersion, promotion: Promotion) -> None:
    """Write the decision among the run's files, numbers and all."""
    file = kept_file(changes.client, root, version, PROMOTION_RECORD)
    before = read_json(file) if file.is_file() else None
    write_json(file, promotion.content())
    if before is None:
        changes.undo.callback(file.unlink)
    else:
        changes.undo.callback(write_json, file, before)
