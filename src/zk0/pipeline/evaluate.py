"""evaluate: base against global model, on every site's held-out data and in closed loop."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zk0.console import console
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.sim.simulation import CONTROL_HZ
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.evaluation.judge import JudgedTask, evaluation_of, judge_models
from zk0.evaluation.limits import Limits
from zk0.evaluation.rollouts import Rollout, write_video
from zk0.evaluation.scores import gains
from zk0.federation.site import Site
from zk0.federation.start import locked_base
from zk0.files import write_json
from zk0.params import Params
from zk0.pipeline.summary import comparison_table
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.start import load_start, resolve_device
from zk0.records.files import read, read_rounds, write
from zk0.records.results import Evaluation, JointTrace, Model, Video
from zk0.records.run import Run
from zk0.so100 import JOINTS

METRICS = Path("results/metrics.json")
VIDEOS = Path("results/rollouts")


def run(root: Path, params: Params) -> None:
    """Write evaluation.json, metrics.json and rollout videos, and print the comparison.

    Raises:
        StageError: A site's episodes are in both training and evaluation.
    """
    torch.set_num_threads(params.threads)
    report = read(root, Run)
    limits = Limits.of(report.limits)
    base_source, base_digest = locked_base(root)
    best = root / report.checkpoints.best.path
    models: dict[Model, LoadedPolicy] = {
        "base": load_start(root, base_source, params.policy.device),
        "global": load_checkpoint(best, resolve_device(params.policy.device)),
    }
    sites, unseen = read_manifests(root)
    _refuse_leakage(report, sites)

    def opened(manifest: Manifest) -> Site:
        return Site(root, manifest, params.data.decoded_limit_bytes)

    judged = judge_models(models, [*sites, *unseen], opened, params, limits, filmed=params.evaluation.videos)
    files: dict[Model, Mapping[str, object]] = {
        "base": {"path": base_source, "digest": base_digest},
        "global": {**report.checkpoints.best.content(), "digest": digest_folder(best)},
    }
    shutil.rmtree(root / VIDEOS, ignore_errors=True)
    videos = tuple(_film(root, model, task, one) for model in judged for task in judged[model] for one in task.filmed)
    found = evaluation_of(files, judged, params, limits).model_copy(update={"videos": videos})
    write(root, found)
    write_json(root / METRICS, _headline(found) | {"cost": _cost(root, report)})
    console.print(comparison_table(found))


def _refuse_leakage(report: Run, sites: list[Manifest]) -> None:
    """The manifests judged on must be those trained on: held-out episodes then stayed out."""
    for manifest in sites:
        trained = report.sites.get(manifest.site)
        if trained is None or trained.digest != manifest.digest:
            raise StageError(
                f"site '{manifest.site}' was split anew since the federation ran, so its held-out episodes may have "
                "been trained on; run `zk0 federate` again"
            )


def _film(root: Path, model: Model, task: JudgedTask, rollout: Rollout) -> Video:
    """Write the video of a rollout, and say which it is; the global model's with the joints' way."""
    assert rollout.frames is not None
    site, file = task.manifest.site, VIDEOS / f"{task.manifest.site}-{model}-{rollout.seed}.mp4"
    write_video(rollout.frames, root / file, CONTROL_HZ)
    about = {"task": site, "model": model, "seed": rollout.seed, "success": rollout.success, "file": str(file)}
    if model == "global":  # the base's is of no interest, and ten times as restless
        about["trace"] = JointTrace(hz=CONTROL_HZ, joints=JOINTS, **_rounded(rollout))
    return Video.model_validate(about)


def _rounded(rollout: Rollout) -> dict[str, Any]:
    kept = {"positions": rollout.states, "asked": rollout.actions, "sent": rollout.sent}
    return {name: tuple(map(tuple, values.round(2).tolist())) for name, values in kept.items()}


def _headline(found: Evaluation) -> dict[str, Any]:
    """What `dvc exp show` and `dvc metrics diff` compare: the global model's first, under names that fit columns.

    What holds of single tasks stays in evaluation.json: three figures a task would be dozens of columns.
    """
    told: dict[Model, dict[str, float]] = {}
    for model, overall in found.overall.named():
        short = {
            "success": overall.success_rate_seen,
            "unseen": overall.success_rate_unseen,
            "error_deg": overall.action_error_deg,
            "loss": overall.held_out_loss,
        }
        told[model] = {name: value for name, value in short.items() if value is not None}
        told[model]["safe"] = int(found.safety.of(model).passed)
    gain = {name: {"value": gain.value, "at_least": gain.lower_bound} for name, gain in gains(found).items()}
    return {**told["global"], "base": told["base"], "gain": gain}


def _cost(root: Path, report: Run) -> dict[str, float]:
    """What the run spent, so that `dvc exp show` tells it beside what came of it."""
    rounds = read_rounds(root)
    spent = {"bytes_up": sum(one.bytes_up for one in rounds), "bytes_down": sum(one.bytes_down for one in rounds)}
    epsilon = report.privacy.epsilon if report.privacy else None
    return {"rounds": report.rounds, **spent, **({} if epsilon is None else {"epsilon": epsilon})}
