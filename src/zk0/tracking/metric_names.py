"""What a run is called in MLflow: params, metrics and tags, made from the result files.

Metric names have structure, and MLflow draws a section of charts for each part before the last slash, in the order of
the alphabet. So ``by_round/``, loss and success over the rounds, comes first; ``comm/``, ``time/`` and ``train/`` have
step = round, too. What holds of a run as a whole has step 0, which MLflow draws as a bar a run: ``eval/...`` of the
judged model, ``eval/base/...`` of the model it started from, ``eval/gain/...``, by how much the one is better than the
other, with its one-sided 95% bound; ``machine/``, what was measured on this machine; ``policy/`` and ``safety/``. What
begins with ``system/`` is on MLflow's page of system metrics, of the process that made the rounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from zk0.evaluation.scores import gains
from zk0.params import Params
from zk0.records.base import Record
from zk0.records.results import Benchmark, Evaluation
from zk0.records.run import PolicySize, Round
from zk0.tracking.results import Results

RUN = "zk0.run"
RECORD = "zk0.record"
SITE = "zk0.site"
ROUND = "zk0.round"
DIGEST = "zk0.digest"
DVC_EXPERIMENT = "zk0.dvc_experiment"
NOT_KEPT = "zk0.not_kept"
GIT_REVISION = "zk0.git_revision"
GIT_DIRTY = "zk0.git_dirty"
STRATEGY = "zk0.strategy"
STOPPED = "zk0.stopped"
BASE_DIGEST = "zk0.base_digest"
PROMOTION = "zk0.promotion"
PROMOTION_AGAINST = "zk0.promotion.against"
PROMOTION_REASONS = "zk0.promotion.reasons"
PROMOTION_BASIS = "zk0.promotion.basis"
CHAMPION_BEFORE = "zk0.champion_before"
IS_CHAMPION = "zk0.champion"
PROMOTED, REFUSED, FORCED = "promoted", "refused", "forced"

_ROUND_METRICS = {
    "train_loss": "by_round/train_loss",
    "learning_rate": "train/learning_rate",
    "server_learning_rate": "train/server_learning_rate",
    "proximal_mu": "train/proximal_mu",
    "held_out_loss": "by_round/held_out_loss",
    "bytes_up": "comm/bytes_up",
    "bytes_down": "comm/bytes_down",
    "round_s": "time/round_s",
    "aggregate_s": "time/aggregate_s",
    "save_s": "time/save_s",
    "epsilon": "privacy/epsilon",
}
_SITE_METRICS = {
    "examples": "train/examples",
    "train_loss": "by_round/train_loss",
    "update_norm": "train/update_norm",
    "held_out_loss": "by_round/held_out_loss",
    "bytes_up": "comm/bytes_up",
    "bytes_down": "comm/bytes_down",
    "train_s": "time/train_s",
    "evaluate_s": "time/evaluate_s",
}
_RUN_METRICS = {
    "wall_s": "time/wall_s",
    "start_held_out_loss": "eval/start_held_out_loss",
    "best_held_out_loss": "eval/best_held_out_loss",
    "last_held_out_loss": "eval/last_held_out_loss",
}
_OVERALL_METRICS = {
    "held_out_loss": "final_held_out_loss",
    "action_error_deg": "action_error_deg",
    "success_rate_seen": "success_rate_seen",
    "success_rate_unseen": "success_rate_unseen",
    "raw_success_rate_seen": "raw_success_rate_seen",
    "successes": "successes",
    "rollouts": "rollouts",
}
_TASK_METRICS = (
    "held_out_loss",
    "action_error_deg",
    "success_rate",
    "success_low",
    "success_high",
    "raw_success_rate",
    "mean_steps",
)


_ASKED_FOR = ("seed", "policy.base", "training.local_steps", "federation.strategy", "federation.rounds")
_NOT_A_RUNS = ("data.sites", "data.unseen", "study.")


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Params as MLflow takes them.

    >>> flatten({"seed": 1, "data": {"unseen": {}, "sites": {"a": "sim:touch"}}})
    {'seed': '1', 'data.unseen': '{}', 'data.sites.a': 'sim:touch'}
    """
    flat: dict[str, str] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def telling_params(params: Mapping[str, Any]) -> dict[str, str]:
    """The params by which a run differs from the defaults, and the few that everybody asks for.

    Sites and unseen tasks are left out, being the run's datasets, and so is what only a study reads.
    """
    usual, flat = flatten(to_jsonable_python(_defaults(Params))), flatten(params)
    return {
        name: value
        for name, value in flat.items()
        if name in _ASKED_FOR or (value != usual.get(name) and not name.startswith(_NOT_A_RUNS))
    }


def _defaults(section: type[BaseModel]) -> dict[str, Any]:
    """What a section's params are where nothing is said; without those that must be."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if not field.is_required():
            found[name] = field.get_default(call_default_factory=True)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = _defaults(field.annotation)
    return found


def slug(text: str) -> str:
    """A part of a metric's name: 'joint ranges, held-out' becomes 'joint-ranges-held-out'."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")


def round_times(results: Results) -> list[int]:
    """When each round ended, in milliseconds.

    Made of the run's start and the rounds' durations, so that a projection cut off and repeated
    logs the very same points, which MLflow keeps once.
    """
    seconds = accumulate(one.round_s or 0.0 for one in results.rounds)
    return [results.started_ms + int(total * 1000) for total in seconds]


def round_metrics(one: Round) -> dict[str, float]:
    """A round's metrics: losses, bytes, seconds, how many sites took part, and the process's share of one core."""
    metrics = _pick(one, _ROUND_METRICS)
    if one.round:
        metrics["train/sites"] = float(sum(bool(site.examples) for site in one.sites.values()))
        metrics["train/sites_left_out"] = float(len(one.left_out))
    if one.cpu_s is not None and one.round_s:
        metrics["system/process_cpu_percentage"] = 100 * one.cpu_s / one.round_s
    if one.memory_bytes is not None:
        metrics["system/process_memory_megabytes"] = one.memory_bytes / 1e6
    return metrics


def site_metrics(one: Round, site: str) -> dict[str, float]:
    """A site's metrics of a round; empty when it took no part."""
    return _pick(one.sites[site], _SITE_METRICS) if site in one.sites else {}


def success_by_round(results: Results) -> list[tuple[str, int, float]]:
    """Name, round and value: success is judged of the starting policy, round 0, and of the best round's model."""
    if results.evaluation is None:
        return []
    overall, best = results.evaluation.overall, results.run.best_round
    found = []
    for name in ("success_rate_seen", "success_rate_unseen"):
        judged = {0: getattr(overall.base, name), best: getattr(overall.trained, name)}
        found += [(f"by_round/{name}", step, float(rate)) for step, rate in judged.items() if rate is not None]
    return found


def final_metrics(results: Results) -> dict[str, float]:
    """What holds of the run as a whole, as far as its stages have run."""
    run = results.run
    metrics = _pick(run, _RUN_METRICS)
    metrics |= _pick(run.policy, {name: f"policy/{name}" for name in PolicySize.model_fields})
    metrics["comm/total_bytes_up"] = float(sum(one.bytes_up for one in results.rounds))
    metrics["comm/total_bytes_down"] = float(sum(one.bytes_down for one in results.rounds))
    if results.evaluation is not None:
        metrics |= _evaluation_metrics(results.evaluation)
    if results.benchmark is not None:
        metrics |= _benchmark_metrics(results.benchmark)
    return metrics


def _evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for model, overall in evaluation.overall.named():
        prefix = "eval/" if model == "global" else "eval/base/"
        metrics |= {prefix + name: value for name, value in _pick(overall, _OVERALL_METRICS).items()}
        for task, scores in evaluation.tasks.items():
            picked = _pick(scores.of(model), {name: name for name in _TASK_METRICS})
            metrics |= {f"{prefix}task/{task}/{name}": value for name, value in picked.items()}
    for name, gain in gains(evaluation).items():
        metrics |= {f"eval/gain/{name}": gain.value, f"eval/gain/{name}_at_least": gain.lower_bound}
    safety = evaluation.safety.trained
    metrics["safety/passed"] = float(safety.passed)
    for check in safety.checks:
        name = "/".join(slug(part) for part in ("safety", check.name, check.joint or "") if part)
        metrics |= _pick(check, {"worst": name})
    return metrics


def _benchmark_metrics(benchmark: Benchmark) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in benchmark.rows:
        name = f"machine/{slug(row.name)}"
        if any(other == name or other.startswith(f"{name}/") for other in metrics):
            name = f"{name}-{slug(row.detail or '2')}"
        unit = slug(row.unit or "value")
        metrics |= _pick(row, {"value": f"{name}/{unit}", "p50": f"{name}/p50_{unit}", "p95": f"{name}/p95_{unit}"})
    return metrics


def _pick(record: Record, names: Mapping[str, str]) -> dict[str, float]:
    """Numbers of a record under MLflow's names; what is missing or null is left out."""
    found = {name: getattr(record, key) for key, name in names.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def identity_tags(results: Results) -> dict[str, str]:
    """Tags that the run, its models and its model version share: what made them."""
    run = results.run
    return {
        RUN: run.run,
        RECORD: results.digest,
        STRATEGY: str(run.params.get("federation", {}).get("strategy", "fedavg")),
        BASE_DIGEST: str(run.base.digest),
        GIT_REVISION: run.git.revision or "",
        GIT_DIRTY: str(run.git.dirty).lower(),
    }
