"""Training an arm's model: in one place, without a server, or by the real federation in a folder of its own.

The baselines in one place get what would help them: the optimiser's moments are never dropped, the cosine schedule
runs over the arm's own steps, and the best checkpoint counts, chosen by held-out loss from as many as
a federation of the same params has rounds.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import cast

import numpy as np

from zk0.data.manifest import Manifest
from zk0.errors import StageError
from zk0.evaluation.held_out import held_out_loss
from zk0.federation.attacks import Attack, AttackKind, poisoned
from zk0.federation.client_app import app as honest
from zk0.federation.home import Home
from zk0.federation.inprocess import InProcessGrid
from zk0.federation.run import config_digest, run_federation
from zk0.federation.server import FederationError
from zk0.federation.state import SiteMemory, StateFolder
from zk0.federation.statistics import merge_all, moments_of
from zk0.params import Params
from zk0.policy.checkpoint import LoadedPolicy, Stats
from zk0.policy.features import features_for
from zk0.policy.trainable import RECORD, DamagedError, Tensors, read_kept, write_kept
from zk0.records.paths import STATES
from zk0.sources import LOCK
from zk0.study.arms import POISONED_PARTITION, Arm
from zk0.study.project import StudyProject, join_frames
from zk0.training.local import LocalTask, train_locally

_PERSONAL_STOPS = 4
_EVERYONE = -1  # whose batches and noise: those of no site
_TENSORS = "trainable"
_OWN = "own-"
_SHARED = ("data", ".cache")  # recordings, manifests and features are the study's own
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What it took.

    Attributes:
        steps: Optimiser steps of one site; of all of them where there is one place.
        samples: Frames drawn into batches, by all together.
        seconds: Of training, with the held-out losses that chose the best checkpoint.
        bytes: Sent and received by all sites together.
        best: The checkpoint that counts, 1 for the first of ``losses``; 0 where nothing was trained.
        losses: Mean held-out loss of every checkpoint; with noise where a private federation told it.
        epsilon: Spent, where it was private.
    """

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    best: int = 0
    losses: tuple[float, ...] = ()
    epsilon: float | None = None


@dataclass(frozen=True)
class Trained:
    """A model.

    Attributes:
        tensors: The policy's trainable tensors.
        stats: Its normalisation; None = the base's own.
        cost: Of getting it.
        own: Site to the tensors that it keeps to itself, where sites do.
    """

    tensors: Tensors
    stats: Stats | None
    cost: Cost
    own: Mapping[str, Tensors] = field(default_factory=dict)

    def at(self, site: str | None) -> Tensors:
        """The model as a site has it: the shared tensors and its own."""
        return self.tensors | self.own.get(site or "", {})

    def save(self, folder: Path) -> None:
        """Write the model into a folder, which is there as a whole or not at all."""
        stats = self.stats and {f: {k: v.tolist() for k, v in values.items()} for f, values in self.stats.items()}
        write_kept(
            folder,
            {"stats": stats, "cost": asdict(self.cost)},
            {_TENSORS: self.tensors, **{f"{_OWN}{site}": own for site, own in self.own.items()}},
        )

    @classmethod
    def load(cls, folder: Path) -> Trained | None:
        """Read it; None where there is none.

        Raises:
            StageError: It is damaged; says what is.
        """
        if not (folder / RECORD).exists():
            return None
        try:
            about, parts = read_kept(folder)
        except DamagedError as error:
            raise StageError(f"{error}. Delete {folder} to train anew") from error
        stats = about["stats"] and {
            feature: {name: np.array(value, dtype=np.float32) for name, value in values.items()}
            for feature, values in about["stats"].items()
        }
        cost = {part.name: about["cost"][part.name] for part in fields(Cost)}
        own = {name.removeprefix(_OWN): tensors for name, tensors in parts.items() if name.startswith(_OWN)}
        return cls(parts.get(_TENSORS, {}), stats, Cost(**cost | {"losses": tuple(cost["losses"])}), own)


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
        most: Of each site's, so many (None = any number).
    """

    sites: tuple[Manifest, ...]
    partition: int
    stops: int
    steps: int
    batch: int
    decay_steps: int
    share: float = 1.0
    most: int | None = None


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
    elif arm.kind not in ("alone", "newcomer"):
        raise StageError(f"arm '{arm.name}' is {arm.kind}; it does not train in one place")
    decay = stops * steps
    if params.training.decay_steps and arm.kind != "personalised":  # the same share of its steps as of a site's own
        decay = params.training.decay_steps * steps // params.training.local_steps
    partition = _EVERYONE if arm.site is None else sites[0].partition
    return Plan(tuple(sites), partition, stops, steps, batch, decay, arm.share, arm.episodes)


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
    parts = [project.train_frames(manifest, plan.share, plan.most) for manifest in plan.sites]
    stats = start.stats if start else merge_all([moments_of(part) for part in parts]).normalisation()
    frames = join_frames(parts)
    warm = project.policy(params)
    warm.shown = None  # from here on the policy holds what is trained here
    loaded = warm.fitted(stats)
    features = features_for(loaded, frames, params.features, project.root)
    training = params.training.model_copy(update={"local_steps": plan.steps, "batch": plan.batch, "keep_moments": True})
    tensors: Tensors = start.at(plan.sites[0].site) if start else warm.first
    best, moments, losses = tensors, None, []
    for number in range(1, plan.stops + 1):
        task = LocalTask(
            params.seed, plan.partition, number, training, plan.decay_steps, processes=params.policy.processes
        )
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


def federate(project: StudyProject, params: Params, folder: Path, attack: str | None = None) -> Trained:
    """Run or continue a federation and give its best model.

    Noise and attacks can drive a model so far that the sites' losses are numbers no more, and the run ends there. For
    an arm that has either, what it reached until then is its result.

    Args:
        project: Whose sites.
        params: With the training seed as ``seed``.
        folder: The run's own; a run that was stopped goes on there. The caller removes it.
        attack: What the site of ``POISONED_PARTITION`` does (None = it is honest).

    Raises:
        FederationError: A round could not be completed, and neither noise nor an attack can be why, or it was the
            first; complete rounds are kept in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (project.root / ".cache").mkdir(exist_ok=True)
    for name in _SHARED:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to((project.root / name).resolve(), target_is_directory=True)
    shutil.copy(project.root / LOCK, folder / LOCK)
    app = poisoned(honest, POISONED_PARTITION, Attack(cast(AttackKind, attack))) if attack else honest
    grid = InProcessGrid(app, folder, len(project.sites), params.data.decoded_limit_bytes, params.policy.processes)
    run = config_digest(params, project.base[1], project.sites)
    states = StateFolder(folder / STATES / run)
    project.forget()  # only one starting policy at a time: the run loads its own
    try:
        run_federation(grid, folder, params, project.base)
    except FederationError as error:
        if attack is None and params.privacy.mode == "off":
            raise
        reached = states.load_last()
        if reached is None or not reached.round:
            raise
        _log.warning("the arm ends with round %d of %d: %s", reached.round, params.federation.rounds, error)
    finally:
        project.forget()
    last = states.load_last()
    assert last is not None  # a run that neither failed nor was stopped saves its rounds
    best = states.load(last.best_round)
    first, *rows = states.rows(last)
    cost = Cost(
        steps=len(rows) * params.training.local_steps,
        samples=sum(site.examples or 0 for row in rows for site in row.sites.values()),
        seconds=sum(row.round_s or 0.0 for row in rows),
        bytes=sum(row.bytes_up + row.bytes_down for row in (first, *rows)),
        best=best.round,
        losses=tuple(row.held_out_loss for row in rows),
        epsilon=last.rounds[-1].epsilon,
    )
    homes = {m.site: SiteMemory.of(folder, run, m.partition) for m in project.sites if params.federation.local}
    own = {site: Home.of(memory, params.federation.local).into({}, best.round) for site, memory in homes.items()}
    return Trained(best.tensors, best.moments().normalisation(), cost, own)
