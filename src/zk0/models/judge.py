"""What evaluation.json holds of one model on one task, and a whole model judged on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zk0.console import progress_bar
from zk0.data.manifest import Manifest, read_manifests
from zk0.evaluation.held_out import Excess, Limits, held_out_loss
from zk0.evaluation.judging import judge_actions
from zk0.evaluation.paired import wilson
from zk0.evaluation.rollouts import Rollout, roll_out_source, why_no_rollouts
from zk0.evaluation.safety import rollout_excess, safety_report
from zk0.federation.agreement import agree
from zk0.federation.site import Site
from zk0.federation.statistics import moments_of
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.so100 import JOINTS


def about_tasks(manifests: list[Manifest], params: Params) -> dict[str, dict[str, Any]]:
    """Task to what it is, and why nobody drives an arm on it, or null.

    With the settings it says what a rollout seed stands for (:mod:`zk0.evaluation.scores`).
    """
    return {
        m.site: {
            "role": m.role,
            "sentence": m.tasks[0],
            "source": m.source,
            "digest": m.digest,
            "no_rollouts": why_no_rollouts(m.source, params.evaluation.rollouts),
        }
        for m in manifests
    }


def settings_of(params: Params) -> dict[str, Any]:
    """What besides the task decides a rollout."""
    return params.evaluation.model_dump(include={"max_steps", "actions_per_look"})


def recorded_here(site: Site, loaded: LoadedPolicy, params: Params, limits: Limits) -> dict[str, Any]:
    """A model on held-out episodes that lie on this machine, as a site answers it."""
    frames, features = site.held_out_frames, site.features("held-out", loaded, params.features)
    loss = held_out_loss(loaded, frames, params.evaluation.loss_draws, params.seed, features)
    return {
        "held_out_loss": loss,
        "frames": len(frames),
        **judge_actions(loaded, frames, features, params.evaluation, params.seed, limits),
    }


def recorded_figures(result: dict[str, Any]) -> dict[str, Any]:
    """For evaluation.json, from what a site answered."""
    by_joint = result["action_error"]
    return {
        "held_out_loss": result["held_out_loss"],
        # The gripper is in percent; the mean in degrees is over the five arm joints.
        "action_error_deg": float(np.mean([by_joint[joint] for joint in JOINTS[:5]])),
        "action_error_deg_by_joint": by_joint,
        "episode_errors_deg": result["episode_error_deg"],
        "held_out_frames": result["frames"],
    }


def closed_loop_figures(rollouts: list[Rollout]) -> dict[str, Any]:
    """For evaluation.json; nulls where there were no rollouts."""
    if not rollouts:
        names = ("success_rate", "success_low", "success_high", "mean_steps")
        return {"rollouts": 0, "successes": 0, **dict.fromkeys(names)}
    successes = sum(r.success for r in rollouts)
    low, high = wilson(successes, len(rollouts))
    return {
        "rollouts": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "success_low": low,
        "success_high": high,
        "mean_steps": float(np.mean([r.steps for r in rollouts])),
        "outcomes": {str(r.seed): r.success for r in rollouts},
    }


def scenes_of(params: Params) -> range:
    """Seeds of the rollouts."""
    return range(params.evaluation.seed, params.evaluation.seed + params.evaluation.rollouts)


def add_excess(excess: dict[str, Excess], more: dict[str, Excess]) -> None:
    """Take in what was found on one more task."""
    for where, found in more.items():
        excess[where] = excess[where].and_of(found) if where in excess else found


def judge_here(root: Path, params: Params, loaded: LoadedPolicy, digest: str, label: str) -> dict[str, Any]:
    """Judge one model, whichever run it is of, on this project's prepared data and scenes.

    Args:
        root: Project folder, prepared.
        params: The project's.
        loaded: The model with its own normalisation.
        digest: Of its checkpoint.
        label: How to name it while it is judged.

    Returns:
        As evaluation.json, with this model as ``global``.
    """
    sites, unseen = read_manifests(root)
    manifests = [*sites, *unseen]
    opened = {m.site: Site(root, m, params.data.decoded_limit_bytes) for m in manifests}
    moments = {m.site: moments_of(opened[m.site].train_frames) for m in sites}
    limits = agree(moments, params.data.fps).moments.limits()
    tasks, excess = about_tasks(manifests, params), dict[str, Excess]()
    with progress_bar() as bar:
        line = bar.add_task(f"judging {label}", total=len(manifests))
        for manifest in manifests:
            result = recorded_here(opened[manifest.site], loaded, params, limits)
            add_excess(excess, {where: Excess.of(content) for where, content in result["excess"].items()})
            rollouts = roll_out_source(loaded, manifest.source, params.evaluation, scenes_of(params))
            if rollouts:
                add_excess(excess, {"rollouts": rollout_excess(rollouts, limits, params.evaluation.velocity_factor)})
            tasks[manifest.site]["global"] = recorded_figures(result) | closed_loop_figures(rollouts)
            bar.advance(line)
    return {
        "models": {"global": {"digest": digest}},
        "settings": settings_of(params),
        "tasks": tasks,
        "safety": {"global": safety_report(excess, params.evaluation)},
    }
