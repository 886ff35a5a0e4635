"""What a run says of itself in MLflow: a name, a description that begins with the headline, and whether it is champion.

All three follow from what is kept of the run and from the registry, so they are written anew whenever one of those is
another: when a run is tracked, and when a version becomes champion or ceases to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from zk0.files import read_json
from zk0.records.results import Evaluation
from zk0.tracking import metric_names
from zk0.tracking.registry import CHAMPION, PROMOTION_RECORD, aliases, kept_file, read_evaluation
from zk0.tracking.store import Transaction, runs

YES, WAS, NO, OPEN = "yes", "was", "no", "not decided"


def run_name(tags: Mapping[str, str], evaluation: Evaluation | None) -> str:
    """What tells a run from others in a table: strategy, digest, and how often it succeeds on the sites' tasks."""
    name = f"{tags[metric_names.STRATEGY]}-{tags[metric_names.RUN][:8]}"
    seen = evaluation.overall.trained.success_rate_seen if evaluation else None
    return name if seen is None else f"{name} {seen:.0%}"


def write_headline(changes: Transaction, root: Path, version: ModelVersion) -> None:
    """Give the run of a version its name, its description and the tag ``zk0.champion``, where they are others."""
    client, run_id = changes.client, str(version.run_id)
    run, evaluation = client.get_run(run_id), read_evaluation(client, root, version, needed=False)
    tags = run.data.tags
    holds = (aliases(client, changes.name) or {}).get(CHAMPION) == int(version.version)
    standing = _standing(tags.get(metric_names.PROMOTION), holds)
    decided = kept_file(client, root, version, PROMOTION_RECORD)
    reasons = list(read_json(decided)["reasons"]) if standing == NO and decided.is_file() else []
    name = run_name(tags, evaluation)
    told = [
        f"{_headline(run.data.metrics, evaluation)}; {_verdict(standing, reasons)}",
        f"version {version.version} of {changes.name}",
        *_further(evaluation, reasons),
    ]
    changes.tag_run(
        run_id,
        {MLFLOW_RUN_NAME: name, MLFLOW_RUN_NOTE: "  \n".join(told), metric_names.IS_CHAMPION: standing},
    )
    if tags.get(MLFLOW_RUN_NAME) != name:
        for child in runs(client, run.info.experiment_id, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"):
            changes.tag_run(child.info.run_id, {MLFLOW_RUN_NAME: f"{name}/{child.data.tags[metric_names.SITE]}"})


def _standing(decided: str | None, holds: bool) -> str:
    if holds:
        return YES
    if decided is None:
        return OPEN
    return NO if decided == metric_names.REFUSED else WAS


def _headline(metrics: Mapping[str, float], evaluation: Evaluation | None) -> str:
    """Success of the trained model beside its base; action error where no task has a simulation."""
    if evaluation is None:
        loss, before = metrics.get("eval/best_held_out_loss"), metrics.get("eval/start_held_out_loss")
        return "not evaluated" if loss is None else f"not evaluated, held-out loss {loss:.4g} (base {before:.4g})"
    base, trained = evaluation.overall.base, evaluation.overall.trained
    pairs = {
        "the sites' tasks": (trained.success_rate_seen, base.success_rate_seen),
        "unseen tasks": (trained.success_rate_unseen, base.success_rate_unseen),
    }
    told = [
        f"{rate:.0%} on {what} (base {before:.0%})"
        for what, (rate, before) in pairs.items()
        if rate is not None and before is not None
    ]
    return f"success {', '.join(told)}" if told else _action_error(evaluation)


def _action_error(evaluation: Evaluation) -> str:
    after, before = (judged.action_error_deg for judged in (evaluation.overall.trained, evaluation.overall.base))
    return f"action error {after:.2f} degrees (base {before:.2f})" if after is not None and before is not None else ""


def _verdict(standing: str, reasons: Sequence[str]) -> str:
    """Champion, or the first reason why not."""
    if standing == YES:
        return "champion"
    if standing == WAS:
        return "champion before"
    if standing == OPEN:
        return "not decided whether it becomes champion"
    others = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"not champion: {reasons[0] if reasons else 'refused'}{others}"


def _further(evaluation: Evaluation | None, reasons: Sequence[str]) -> list[str]:
    told = []
    if evaluation is not None:
        told.append(_action_error(evaluation))
        told.append(f"safety check {'passed' if evaluation.safety.trained.passed else 'failed'}")
    return [line for line in [*told, *(f"not champion: {reason}" for reason in reasons[1:])] if line]
