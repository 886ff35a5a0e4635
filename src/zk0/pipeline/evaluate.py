"""evaluate: base against global model, on every site's held-out data and in closed loop."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zk0.console import console, progress_bar
from zk0.data.manifest import Manifest, read_manifests
from zk0.data.sim.simulation import CONTROL_HZ
from zk0.digests import digest_folder
from zk0.errors import StageError
from zk0.evaluation.held_out import Excess, Limits
from zk0.evaluation.rollouts import Rollout, roll_out_source
from zk0.evaluation.safety import rollout_excess, safety_report, step_limits
from zk0.evaluation.scores import gains
from zk0.evaluation.video import write_video
from zk0.federation import protocol
from zk0.federation.broadcast import Model
from zk0.federation.client_app import app as client_app
from zk0.federation.discovery import meet
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import locked_base, read_run
from zk0.federation.server import Server
from zk0.federation.site import Site
from zk0.files import read_records, write_json
from zk0.models.judge import (
    about_tasks,
    add_excess,
    closed_loop_figures,
    recorded_figures,
    recorded_here,
    scenes_of,
    settings_of,
)
from zk0.params import Params, PrivacyParams
from zk0.pipeline.summary import comparison_table
from zk0.policy.checkpoint import LoadedPolicy, Stats, load_checkpoint
from zk0.policy.start import load_start, resolve_device
from zk0.policy.trainable import trainable_tensors
from zk0.records.journal import Journal
from zk0.records.paths import RESULTS

OUT = Path("results/evaluation.json")
METRICS = Path("results/metrics.json")
VIDEOS = Path("results/rollouts")


@dataclass(frozen=True)
class Candidate:
    """A model to judge; ``stats`` None means that it keeps the base's own normalisation."""

    name: str
    loaded: LoadedPolicy
    stats: Stats | None


def run(root: Path, params: Params) -> None:
    """Write evaluation.json, metrics.json and rollout videos, and print the comparison.

    Raises:
        StageError: A site's episodes are in both training and evaluation, or a site failed.
    """
    torch.set_num_threads(params.threads)
    report = read_run(root)
    limits = Limits.of(report["limits"])
    base_source, base_digest = locked_base(root)
    best = root / report["checkpoints"]["best"]["path"]
    stats = {f: {k: np.array(v, dtype=np.float32) for k, v in s.items()} for f, s in report["stats"].items()}
    candidates = [
        Candidate("base", load_start(root, base_source, params.policy.device), None),
        Candidate("global", load_checkpoint(best, resolve_device(params.policy.device)), stats),
    ]
    sites, unseen = read_manifests(root)
    _refuse_leakage(report, sites)
    tasks = about_tasks([*sites, *unseen], params)
    safety, videos = {}, []
    shutil.rmtree(root / VIDEOS, ignore_errors=True)
    with progress_bar() as bar:
        line = bar.add_task("evaluating", total=len(candidates) * 2 * len(tasks))
        for candidate in candidates:
            excess: dict[str, Excess] = {}
            for name, result in _recorded(root, params, candidate, limits, sites, unseen).items():
                add_excess(excess, result.pop("excess"))
                tasks[name][candidate.name] = recorded_figures(result)
                bar.advance(line)
            for manifest in [*sites, *unseen]:
                settings = params.evaluation
                rollouts = roll_out_source(
                    candidate.loaded, manifest.source, settings, scenes_of(params), filmed=settings.videos
                )
                tasks[manifest.site][candidate.name] |= closed_loop_figures(rollouts)
                if rollouts:
                    add_excess(
                        excess, {"rollouts": rollout_excess(rollouts, limits, params.evaluation.velocity_factor)}
                    )
                videos += _film(root, params, candidate, manifest, rollouts)
                bar.advance(line)
            safety[candidate.name] = safety_report(excess, params.evaluation)
    result = {
        "models": {
            "base": {"path": base_source, "digest": base_digest},
            "global": {**report["checkpoints"]["best"], "digest": digest_folder(best)},
        },
        "settings": settings_of(params),
        "tasks": tasks,
        "overall": {c.name: _overall(tasks, c.name) for c in candidates},
        "safety": safety,
        "max_relative_target": step_limits(limits, params.evaluation),
        "videos": videos,
    }
    write_json(root / OUT, result)
    write_json(root / METRICS, _headline(result) | {"cost": _cost(root, report)})
    console.print(comparison_table(result))


def _refuse_leakage(report: dict[str, Any], sites: list[Manifest]) -> None:
    """The manifests judged on must be those trained on: held-out episodes then stayed out."""
    for manifest in sites:
        trained = report["sites"].get(manifest.site)
        if trained is None or trained["digest"] != manifest.digest:
            raise StageError(
                f"site '{manifest.site}' was split anew since the federation ran, so its held-out episodes may have "
                "been trained on; run `zk0 federate` again"
            )


def _recorded(
    root: Path, params: Params, candidate: Candidate, limits: Limits, sites: list[Manifest], unseen: list[Manifest]
) -> dict[str, dict[str, Any]]:
    """Judge on recorded data: each site by message on its own, unseen tasks here."""
    # A checkpoint is a whole policy: adapters, if any trained, are merged into it.
    # What is judged here lies on this machine, so no site hides anything from it.
    whole = {"policy": params.policy.model_copy(update={"lora_rank": 0}), "privacy": PrivacyParams()}
    params = params.model_copy(update=whole)
    grid = InProcessGrid(client_app, root, len(sites), params.data.decoded_limit_bytes)
    state = root / "state"
    server = Server(
        grid, params, "evaluate", locked_base(root), Journal(state / "evaluate-events.jsonl"), state / "waiting"
    )
    meet(server)
    model = Model.of(trainable_tensors(candidate.loaded.policy))
    results = {
        reply.site: dict(reply.values)
        for reply in server.ask(protocol.EVALUATE, 0, model, candidate.stats, limits=limits.content())
    }
    server.enough(len(results), 0, "evaluated")
    for manifest in unseen:
        site = Site(root, manifest, params.data.decoded_limit_bytes)
        results[manifest.site] = recorded_here(site, candidate.loaded, params, limits)
    for result in results.values():
        result["excess"] = {where: Excess.of(content) for where, content in result["excess"].items()}
    return results


def _film(
    root: Path, params: Params, candidate: Candidate, manifest: Manifest, rollouts: list[Rollout]
) -> list[dict[str, Any]]:
    videos = []
    for rollout in rollouts[: params.evaluation.videos]:
        assert rollout.frames is not None
        file = VIDEOS / f"{manifest.site}-{candidate.name}-{rollout.seed}.mp4"
        write_video(rollout.frames, root / file, CONTROL_HZ)
        videos.append(
            {
                "task": manifest.site,
                "model": candidate.name,
                "seed": rollout.seed,
                "success": rollout.success,
                "file": str(file),
            }
        )
    return videos


def _overall(tasks: dict[str, dict[str, Any]], model: str) -> dict[str, Any]:
    """Means over the sites; success also over the unseen tasks. Nulls where no arm was driven, since 0 is a result."""
    seen = [t[model] for t in tasks.values() if t["role"] == "site"]
    unseen = [t[model] for t in tasks.values() if t["role"] == "unseen"]

    def rate(results: list[dict[str, Any]]) -> float | None:
        rates = [r["success_rate"] for r in results if r["success_rate"] is not None]
        return float(np.mean(rates)) if rates else None

    rollouts = sum(r["rollouts"] for r in seen + unseen)
    return {
        "held_out_loss": float(np.mean([r["held_out_loss"] for r in seen])),
        "action_error_deg": float(np.mean([r["action_error_deg"] for r in seen])),
        "success_rate_seen": rate(seen),
        "success_rate_unseen": rate(unseen),
        "successes": sum(r["successes"] for r in seen + unseen) if rollouts else None,
        "rollouts": rollouts or None,
    }


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


def _cost(root: Path, report: dict[str, Any]) -> dict[str, Any]:
    """What the run spent, so that `dvc exp show` tells it beside what came of it."""
    rounds = read_records(root / RESULTS / "rounds.jsonl", broken="none").values()
    spent = {name: sum(line.get(name) or 0 for line in rounds) for name in ("bytes_up", "bytes_down")}
    epsilon = report.get("privacy", {}).get("epsilon")
    return {"rounds": report["rounds"], **spent, **({} if epsilon is None else {"epsilon": epsilon})}
