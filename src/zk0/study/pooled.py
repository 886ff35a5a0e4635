"""Training in one place, without a server: on one site's data, or on all of it.

The baselines get what would help them: the optimiser's moments are never dropped, the cosine schedule
runs over the arm's own steps, and the best checkpoint counts, chosen by held-out loss from as many as
a federation of the same params has rounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.evaluation.held_out import held_out_loss
from zk0.federation.statistics import merge_all, moments_of
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import features_for
from zk0.policy.trainable import Tensors
from zk0.study.arms import Arm
from zk0.study.joined import join_frames
from zk0.study.project import StudyProject
from zk0.study.trained import Cost, Trained
from zk0.training.local import LocalTask, train_locally

_PERSONAL_STOPS = 4
_EVERYONE = -1  # whose batches and noise: those of no site


@dataclass(frozen=True)
class Plan:
    """What is trained on, and for how long.

    Attributes:
        sites: Whose data.
        partition: Batches and noise belong to it and to the training seed.
        stops: Checkpoints; after each the held-out loss is taken.
        steps: Optimiser steps from one to the next.
        batch: Frames a step.
        decay_steps: Step at which the learning rate has come down.
        share: Of each site's training episodes.
    """

    sites: tuple[Manifest, ...]
    partition: int
    stops: int
    steps: int
    batch: int
    decay_steps: int
    share: float = 1.0


def plan_of(arm: Arm, params: Params, project: StudyProject) -> Plan:
    """The plan of an arm that trains in one place.

    Raises:
        StageError: The arm trains elsewhere, or on a site that is not there.
    """
    sites = project.sites if arm.site is None else [project.manifest(arm.site)]
    stops, steps, batch = params.federation.rounds, params.training.local_steps, params.training.batch
    if arm.kind == "pooled" and arm.budget == "steps":
        batch *= len(sites)
    elif arm.kind == "pooled":
        steps *= len(sites)
    elif arm.kind == "personalised":
        stops, steps = _PERSONAL_STOPS, params.study.personal_steps // _PERSONAL_STOPS
    elif arm.kind != "alone":
        raise StageError(f"arm '{arm.name}' is {arm.kind}; it does not train in one place")
    decay = stops * steps
    if params.training.decay_steps and arm.kind != "personalised":  # the same share of its steps as of a site's own
        decay = params.training.decay_steps * steps // params.training.local_steps
    partition = _EVERYONE if arm.site is None else sites[0].partition
    return Plan(tuple(sites), partition, stops, steps, batch, decay, arm.share)


def train_in_one_place(project: StudyProject, params: Params, plan: Plan, start: Trained | None = None) -> Trained:
    """Train by the sites' own loop over frames of one or several sites.

    Args:
        project: Where the data is.
        params: With the training seed as ``seed``.
        plan: What to train on, and for how long.
        start: Model to start from, with its normalisation; None = the starting policy, with the normalisation
            that the training frames show.

    Raises:
        FloatingPointError: The training loss is not finite.
    """
    began = time.perf_counter()
    parts = [project.train_frames(manifest, plan.share) for manifest in plan.sites]
    stats = start.stats if start else merge_all([moments_of(part) for part in parts]).normalisation()
    frames = join_frames(parts)
    warm = project.policy(params)
    warm.shown = None  # from here on the policy holds what is trained here
    loaded = warm.fitted(stats)
    features = features_for(loaded, frames, params.features, project.root)
    training = params.training.model_copy(update={"local_steps": plan.steps, "batch": plan.batch, "keep_moments": True})
    tensors: Tensors = start.tensors if start else warm.first
    best, moments, losses = tensors, None, []
    for number in range(1, plan.stops + 1):
        task = LocalTask(params.seed, plan.partition, number, training, plan.decay_steps)
        result = train_locally(loaded, frames, tensors, task, features, moments)
        tensors, moments = result.tensors, result.moments
        losses.append(mean_held_out_loss(project, loaded, plan.sites, params))
        if losses[-1] < min(losses[:-1], default=float("inf")):
            best = tensors
    steps = plan.stops * plan.steps
    cost = Cost(
        steps=steps,
        samples=steps * plan.batch,
        seconds=time.perf_counter() - began,
        best=1 + losses.index(min(losses)),
        losses=tuple(losses),
    )
    return Trained(best, stats, cost)


def mean_held_out_loss(
    project: StudyProject, loaded: LoadedPolicy, sites: tuple[Manifest, ...], params: Params
) -> float:
    """Held-out loss of what is in the policy, mean over sites weighted by frames, as a federation's rounds take it."""
    total, count = 0.0, 0
    for manifest in sites:
        site = project.site(manifest)
        frames, features = site.held_out_frames, site.features("held-out", loaded, params.features)
        loss = held_out_loss(loaded, frames, params.evaluation.loss_draws, params.seed, features)
        total, count = total + loss * len(frames), count + len(frames)
    return total / count
