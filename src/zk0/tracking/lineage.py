"""From a model version back to what made it and the commands that bring that back, and the runs at a glance."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from mlflow import MlflowClient
from mlflow.entities import Run

from zk0.machine.repository import ADD_REMOTE, default_remote
from zk0.records.files import read
from zk0.records.paths import RUN
from zk0.records.run import Run as FederatedRun
from zk0.tracking import DATABASE, metric_names
from zk0.tracking.experiments import git_remote, here
from zk0.tracking.registry import aliases, find_version, kept_file, version_checkpoint
from zk0.tracking.store import opened, runs, versions

_NOT_KEPT = (
    "this run's data and params: it was not kept as a DVC experiment, as runs of `dvc repro`, `dvc exp run` and of the "
    "flow federate are where git has a commit"
)


@dataclass(frozen=True)
class Restoring:
    """How to get back to a run.

    Attributes:
        push: Typed here, these send it to where a fresh clone finds it.
        commands: Typed in a fresh clone that has the DVC remote, these bring it back.
        here: Typed here, these do.
        cannot: What is not brought back, or why nothing is.
    """

    push: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)


class Dataset(TypedDict):
    """Recordings of a run: ``source`` is JSON, ``role`` training or evaluation."""

    digest: str
    role: str
    source: str


class Description(TypedDict):
    """Where a model version comes from and how to get back there; what was not recorded is None.

    Attributes:
        run: The params' digest.
        digest, checkpoint: Of the weights.
        params: By their dotted names.
        push, commands, here, cannot: See :class:`Restoring`.
    """

    model: str
    version: int
    aliases: list[str]
    description: str | None
    run_id: str
    run: str
    round: int
    digest: str
    checkpoint: str
    base_source: str
    base_digest: str
    strategy: str
    git_revision: str | None
    git_dirty: bool
    dvc_experiment: str | None
    flow_run: str | None
    params: dict[str, str]
    datasets: dict[str, Dataset]
    metrics: dict[str, float]
    push: list[str]
    commands: list[str]
    here: list[str]
    cannot: list[str]


class RunRow(TypedDict):
    """A tracked run at a glance; metrics are None where they were not measured.

    Attributes:
        run: The params' digest.
        codec: Up and down, one name if they are the same.
        flow_run: Name of the flow run that made it.
        champion: ``yes``, ``was``, ``no`` or ``not decided``.
        versions: Such as ``zk0-smolvla/3 (champion)``.
        refused: Why it did not become the champion; None if nothing was against it.
    """

    run_id: str
    name: str
    run: str
    started_ms: int
    status: str
    strategy: str
    codec: str
    rounds: int | None
    sites: int
    git_revision: str | None
    dvc_experiment: str | None
    flow_run: str | None
    champion: str | None
    versions: list[str]
    refused: str | None
    held_out_loss: float | None
    action_error_deg: float | None
    base_action_error_deg: float | None
    success_seen: float | None
    base_success_seen: float | None
    success_unseen: float | None
    base_success_unseen: float | None
    safe: float | None
    epsilon: float | None
    bytes_up: float | None
    bytes_down: float | None
    wall_s: float | None


def restoring(
    root: Path, revision: str | None, experiment: str | None, new_files: str, sources: Iterable[str]
) -> Restoring:
    """What to type to have a run back.

    Args:
        root: The project's folder, which knows git's and DVC's remotes.
        revision: The commit that the run started from.
        experiment: The DVC experiment that holds it, if one was recorded.
        new_files: Those that git did not know when it was kept, as one text.
        sources: Of its data, as params.yaml names them.
    """
    if revision is None or experiment is None:
        return Restoring(cannot=[_NOT_KEPT])
    if not here(root, experiment):
        gone = f"the experiment {experiment} is not in this clone: `dvc exp pull origin {experiment}`, if it was pushed"
        return Restoring(cannot=[gone])
    remote, url = git_remote(root), default_remote(root)
    cannot = []
    if remote is None:
        cannot.append("nothing in another clone, while git has no remote here: `git remote add origin URL`")
    if url is None:
        cannot.append(f"no data in another clone, while DVC has no remote outside this folder: `{ADD_REMOTE}`")
    if new_files:
        cannot.append(f"files that git did not know: {new_files}")
    given = sorted({source for source in sources if not source.startswith("sim:")})
    if given:
        cannot.append(f"recordings that DVC does not hold, which must be where they were: {', '.join(given)}")
    back = [f"git checkout {revision}", f"dvc exp apply {experiment}"]
    elsewhere = remote is not None and url is not None
    return Restoring(
        [f"dvc exp push {remote} {experiment}"] if elsewhere else [],
        [f"dvc exp pull origin {experiment}", *back] if elsewhere else [],
        back,
        cannot,
    )


def describe_version(root: Path, model_name: str, version: int) -> Description:
    """Where a model version comes from and how to get back there.

    Raises:
        TrackingError: There is no such version, or no store.
    """
    root = root.resolve()
    with opened(root) as client:
        found = find_version(client, model_name, version)
        run = client.get_run(str(found.run_id))
        checkpoint = version_checkpoint(client, root, found)
        federated = read(root, FederatedRun, kept_file(client, root, found, RUN))
    tags = {**run.data.tags, **found.tags}
    revision, dvc_experiment = tags.get(metric_names.GIT_REVISION) or None, tags.get(metric_names.DVC_EXPERIMENT)
    datasets = _datasets(run)
    sources = [str(json.loads(given["source"]).get("source")) for given in datasets.values()]
    back = restoring(root, revision, dvc_experiment, tags.get(metric_names.NOT_KEPT, ""), sources)
    return {
        "model": model_name,
        "version": version,
        "aliases": sorted(found.aliases),
        "description": found.description,
        "run_id": run.info.run_id,
        "run": tags[metric_names.RUN],
        "round": int(tags[metric_names.ROUND]),
        "digest": tags[metric_names.DIGEST],
        "checkpoint": checkpoint.relative_to(root).as_posix(),
        "base_source": federated.base.source,
        "base_digest": tags[metric_names.BASE_DIGEST],
        "strategy": tags[metric_names.STRATEGY],
        "git_revision": revision,
        "git_dirty": tags[metric_names.GIT_DIRTY] == "true",
        "dvc_experiment": dvc_experiment,
        "flow_run": tags.get("prefect.flow_run_id"),
        "params": metric_names.flatten(federated.params),
        "datasets": datasets,
        "metrics": dict(run.data.metrics),
        "push": back.push,
        "commands": back.commands,
        "here": back.here,
        "cannot": back.cannot,
    }


def _datasets(run: Run) -> dict[str, Dataset]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {
        given.dataset.name: {
            "digest": given.dataset.digest,
            "role": next((tag.value for tag in given.tags if tag.key == "mlflow.data.context"), ""),
            "source": given.dataset.source,
        }
        for given in inputs
    }


def list_runs(root: Path, experiment: str) -> list[RunRow]:
    """The tracked federated runs, newest first, as rows of a table; empty if there are none."""
    if not (root / DATABASE).exists():
        return []
    with opened(root) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        parents = runs(client, found.experiment_id, f"tags.`{metric_names.RECORD}` LIKE '%'")
        labels = _labels(client)
    return [_row(run, labels) for run in parents if metric_names.SITE not in run.data.tags]


def _labels(client: MlflowClient) -> dict[str, list[str]]:
    """The registered versions of each run, as ``zk0-smolvla/3 (champion)``."""
    labels: dict[str, list[str]] = {}
    registered = versions(client)
    known = {name: aliases(client, name) or {} for name in {version.name for version in registered}}
    for version in registered:
        mine = sorted(alias for alias, number in known[version.name].items() if number == int(version.version))
        suffix = f" ({', '.join(mine)})" if mine else ""
        labels.setdefault(str(version.run_id), []).append(f"{version.name}/{version.version}{suffix}")
    return labels


def _row(run: Run, labels: dict[str, list[str]]) -> RunRow:
    tags, metrics = run.data.tags, run.data.metrics
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "run": tags[metric_names.RUN],
        "started_ms": run.info.start_time,
        "status": run.info.status,
        "strategy": tags[metric_names.STRATEGY],
        "codec": _codec(run),
        "rounds": int(run.data.params["federation.rounds"]) if "federation.rounds" in run.data.params else None,
        "sites": sum(given["role"] == "training" for given in _datasets(run).values()),
        "git_revision": tags.get(metric_names.GIT_REVISION) or None,
        "dvc_experiment": tags.get(metric_names.DVC_EXPERIMENT),
        "flow_run": tags.get("prefect.flow_run_name"),
        "champion": tags.get(metric_names.IS_CHAMPION),
        "versions": labels.get(run.info.run_id, []),
        "refused": tags.get(metric_names.PROMOTION_REASONS)
        if tags.get(metric_names.PROMOTION) == metric_names.REFUSED
        else None,
        "held_out_loss": metrics.get("eval/best_held_out_loss"),
        "action_error_deg": metrics.get("eval/action_error_deg"),
        "base_action_error_deg": metrics.get("eval/base/action_error_deg"),
        "success_seen": metrics.get("eval/success_rate_seen"),
        "base_success_seen": metrics.get("eval/base/success_rate_seen"),
        "success_unseen": metrics.get("eval/success_rate_unseen"),
        "base_success_unseen": metrics.get("eval/base/success_rate_unseen"),
        "safe": metrics.get("safety/passed"),
        "epsilon": metrics.get("privacy/epsilon"),
        "bytes_up": metrics.get("comm/total_bytes_up"),
        "bytes_down": metrics.get("comm/total_bytes_down"),
        "wall_s": metrics.get("time/wall_s"),
    }


def _codec(run: Run) -> str:
    """How the run's tensors travelled."""
    up, down = (run.data.params.get(f"federation.{way}link", "fp32") for way in ("up", "down"))
    return up if up == down else f"{up} up, {down} down"
