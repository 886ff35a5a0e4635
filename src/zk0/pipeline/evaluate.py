"""evaluate: base against global model, on every site's held-out data and in closed loop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from zk0.console import console, progress_bar
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.sim.simulation import CONTROL_HZ
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.evaluation.held_out import Limits
from zk0.evaluation.judge import JudgedModel, JudgedTask, evaluation_of, judge_task
from zk0.evaluation.rollouts import Rollout, roll_out_source, write_video
from zk0.evaluation.safety import step_limits
from zk0.evaluation.scores import gains
from zk0.federation.run import locked_base
from zk0.federation.site import Site
from zk0.files import write_json
from zk0.params import Params
from zk0.pipeline.summary import comparison_table
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint
from zk0.policy.start import load_start, resolve_device
from zk0.records.files import read, read_rounds, write
from zk0.records.results import Evaluation
from zk0.records.run import Run

Which = Literal["base", "global"]
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
    device = params.policy.device
    loaded: dict[Which, LoadedPolicy] = {
        "base": load_start(root, base_source, device),
        "global": load_checkpoint(best, resolve_device(device)),
    }
    sites, unseen = read_manifests(root)
    _refuse_leakage(report, sites)
    judged: dict[Which, list[JudgedTask]] = {name: [] for name in loaded}
    videos: dict[Which, list[dict[str, Any]]] = {name: [] for name in loaded}
    shutil.rmtree(root / VIDEOS, ignore_errors=True)
    settings = params.evaluation
    scenes = range(settings.seed, settings.seed + settings.rollouts)
    with progress_bar() as bar:
        line = bar.add_task("evaluating", total=len(loaded) * len([*sites, *unseen]))
        for manifest in [*sites, *unseen]:
            site = Site(root, manifest, params.data.decoded_limit_bytes)
            for name, policy in loaded.items():
                rollouts = roll_out_source(policy, manifest.source, settings, scenes, filmed=settings.videos)
                judged[name].append(judge_task(policy, manifest, site, params, rollouts, limits))
                videos[name] += _film(root, name, manifest, rollouts[: settings.videos])
                bar.advance(line)
    files: dict[Which, dict[str, Any]] = {
        "base": {"path": base_source, "digest": base_digest},
        "global": {**report.checkpoints.best.content(), "digest": digest_folder(best)},
    }
    result = evaluation_of({name: JudgedModel(files[name], tasks) for name, tasks in judged.items()}, params) | {
        "max_relative_target": step_limits(limits, settings),
        "videos": [video for name in loaded for video in videos[name]],
    }
    found = Evaluation.model_validate(result)
    write(root, found)
    write_json(root / METRICS, _headline(result) | {"cost": _cost(root, report)})
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


def _film(root: Path, model: Which, manifest: Manifest, rollouts: list[Rollout]) -> list[dict[str, Any]]:
    """Write the videos of rollouts, and say which they are."""
    videos = []
    for rollout in rollouts:
        assert rollout.frames is not None
        file = VIDEOS / f"{manifest.site}-{model}-{rollout.seed}.mp4"
        write_video(rollout.frames, root / file, CONTROL_HZ)
        told = {"task": manifest.site, "model": model, "seed": rollout.seed, "success": rollout.success}
        videos.append({**told, "file": str(file)})
    return videos


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    """What `dvc exp show` and `dvc metrics diff` compare: the global model's first, under names that fit columns.

    What holds of single tasks stays in evaluation.json: three figures a task would be dozens of columns.
    """
    short = {
        "success": "success_rate_seen",
        "unseen": "success_rate_unseen",
        "error_deg": "action_error_deg",
        "loss": "held_out_loss",
    }
    found: dict[str, dict[str, Any]] = {}
    for model, overall in result["overall"].items():
        found[model] = {name: overall[key] for name, key in short.items() if overall[key] is not None}
        found[model]["safe"] = int(result["safety"][model]["passed"])
    gain = {name: {"value": gain.value, "at_least": gain.lower_bound} for name, gain in gains(result).items()}
    return {**found["global"], "base": found["base"], "gain": gain}


def _cost(root: Path, report: Run) -> dict[str, Any]:
    """What the run spent, so that `dvc exp show` tells it beside what came of it."""
    rounds = read_rounds(root)
    spent = {"bytes_up": sum(one.bytes_up for one in rounds), "bytes_down": sum(one.bytes_down for one in rounds)}
    epsilon = report.privacy and report.privacy.epsilon
    return {"rounds": report.rounds, **spent, **({} if epsilon is None else {"epsilon": epsilon})}
