"""What is compared, as data: one arm is one way of getting a model. Nothing heavy is imported here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from zk0.federation.privacy.accountant import calibrated_noise
from zk0.params import DataParams, Params, with_changes
from zk0.words import nearest_hint

Kind = Literal["base", "alone", "pooled", "federated", "personalised", "newcomer"]
Budget = Literal["steps", "samples"]

FEDERATED = "federated"
POISONED_PARTITION = 1
EPSILONS = (4.0, 8.0, 32.0)
NEWCOMER_EPISODES = (5, 10, 20)
# Shares of the params' own training episodes and optimiser steps, and ranks of the adapters (0 = the whole expert).
FEASIBILITY_POINTS = (
    *((share, 1.0, 0) for share in (1 / 8, 1 / 4, 1 / 2, 1)),
    *((1.0, share, 0) for share in (1 / 8, 1 / 4, 1 / 2, 1, 2)),
    *((1.0, 1.0, rank) for rank in (4, 16, 64)),
)


@dataclass(frozen=True)
class Arm:
    """One way of getting a model.

    Attributes:
        name: Unique in a study.
        kind: ``base`` trains nothing; ``alone`` trains on one site's data; ``pooled`` on all sites' data in one
            place; ``federated`` by rounds; ``personalised`` on one site's data from the global model;
            ``newcomer`` on the data of an owner who had no part in the federation.
        about: What it is, in a few words, for people.
        site: Whose data, of ``alone``, ``personalised`` and ``newcomer``.
        budget: Of ``pooled``: ``steps`` takes as many optimiser steps as one site, at the whole federation's
            batch; ``samples`` sees as many samples as all sites together, at one site's batch.
        changes: Dotted params to values, beside the study's own params.
        share: Of each site's training episodes, the first ones.
        episodes: Of the own site's, at most so many (None = all).
        from_global: Of ``newcomer``: whether it starts from the global model; else from the base.
        attack: What the site of partition ``POISONED_PARTITION`` does to the federation (None = all are honest).
        own_task_only: Judged on its site's task alone.

    Example:
        >>> Arm("alone:red", "alone", "red's data only", site="red").slug
        'alone-red'
    """

    name: str
    kind: Kind
    about: str
    site: str | None = None
    budget: Budget | None = None
    changes: Mapping[str, object] = field(default_factory=dict)
    share: float = 1.0
    episodes: int | None = None
    from_global: bool = False
    attack: str | None = None
    own_task_only: bool = False

    @property
    def slug(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.name)

    @property
    def seeded(self) -> bool:
        """Whether a training seed changes anything: an untrained policy has none."""
        return self.kind != "base"

    @property
    def starts_from(self) -> str | None:
        """The arm whose model it starts from; None is the base."""
        return FEDERATED if self.kind == "personalised" or self.from_global else None

    def params(self, params: Params) -> Params:
        """A study's params as they hold for this arm.

        Raises:
            ParamsError: Its changes cannot be.
        """
        return with_changes(params, self.changes) if self.changes else params

    def key(self) -> dict[str, object]:
        """All that decides the model, for a digest, as far as it is not the default; not what it is called."""
        named = ("name", "about")
        plain = Arm("", self.kind, "")
        told = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in named}
        return {name: value for name, value in told.items() if name == "kind" or value != getattr(plain, name)}


def site_names(data: DataParams) -> tuple[str, ...]:
    """The sites that these params make, as ``zk0 prepare`` names them, in partition order."""
    if data.partition.scheme == "none":
        return tuple(data.sites)
    (name,) = data.sites
    return tuple(f"{name}-{number}" for number in range(data.partition.sites))


def base() -> Arm:
    """The starting policy, untrained on any site's data."""
    return Arm("base", "base", "the starting policy, not trained further")


def alone(site: str) -> Arm:
    """One site by itself: its data, its own normalisation, as many steps as it takes in the federation."""
    return Arm(f"alone:{site}", "alone", f"trained on the data of {site} only", site=site)


def pooled(budget: Budget) -> Arm:
    """All data in one place, at one of the two budgets."""
    about = {
        "steps": "all data in one place; as many steps as one site takes, at the whole federation's batch",
        "samples": "all data in one place; as many samples as all sites see together, at one site's batch",
    }[budget]
    return Arm(f"pooled:{budget}", "pooled", about, budget=budget)


def federated(variant: str | None = None, changes: Mapping[str, object] | None = None) -> Arm:
    """The federation of the params, or a variant of it."""
    if variant is None:
        return Arm(FEDERATED, "federated", "federated as params.yaml says")
    told = ", ".join(f"{name} = {value}" for name, value in (changes or {}).items())
    return Arm(f"{FEDERATED}:{variant}", "federated", f"federated with {told}", changes=dict(changes or {}))


def personalised(site: str) -> Arm:
    """A few steps on a site's data from the global model, with the federation's normalisation."""
    about = f"the global model, trained further on the data of {site}"
    return Arm(f"personalised:{site}", "personalised", about, site=site, own_task_only=True)


def newcomer(site: str, episodes: int, from_global: bool) -> Arm:
    """An owner who joins late: so many own episodes, as many steps as a site takes in the federation.

    From the global model it keeps the federation's normalisation, from the base it has its own.
    """
    start = "global" if from_global else "base"
    about = f"{episodes} episodes of {site}, from the {'global model' if from_global else 'base'}"
    return Arm(
        f"newcomer:{site}:{episodes}:{start}",
        "newcomer",
        about,
        site=site,
        episodes=episodes,
        from_global=from_global,
        own_task_only=True,
    )


def newcomer_arms(data: DataParams) -> tuple[Arm, ...]:
    """Every task that no site has, as an owner who joins late with ever more own episodes; fewer where few are there.

    They train on the first two thirds of what is recorded, and are judged on the others.
    """
    wanted = NEWCOMER_EPISODES[-1]
    most = min(wanted, data.episodes * 2 // 3)
    points = sorted({max(1, own * most // wanted) for own in NEWCOMER_EPISODES})
    return tuple(newcomer(site, own, start) for site in data.unseen for own in points for start in (True, False))


def attacked(strategy: str, attack: str | None) -> Arm:
    """A federation by some strategy in which one site may be malicious."""
    told = f"site {POISONED_PARTITION + 1} sends {attack}" if attack else "all sites honest"
    name = f"{attack or 'honest'}:{strategy}"
    # What another strategy needed must not be left: fedprox's term and its schedule, fedadam's small server step.
    changes = {
        "federation.strategy": strategy,
        "federation.proximal_mu": 0.0,
        "federation.proximal_schedule": "constant",
        "federation.server_learning_rate": None,
    }
    return Arm(name, "federated", f"{strategy}, {told}", changes=changes, attack=attack)


def feasibility_arms(params: Params) -> tuple[Arm, ...]:
    """Points of the curves of success over data, steps and trainable size; the params' own sizes belong to all."""
    sites, rounds = len(site_names(params.data)), params.federation.rounds
    arms: dict[str, Arm] = {}  # small params round several points to one
    for share, longer, rank in FEASIBILITY_POINTS:
        local_steps = max(1, round(params.training.local_steps * longer))
        size = f"adapters of rank {rank}" if rank else "the whole expert"
        data = "all episodes" if share == 1 else f"1/{round(1 / share)} of the episodes"
        name = f"{data}, {local_steps * rounds * sites} steps, {size}"
        changes = {"training.local_steps": local_steps, "policy.lora_rank": rank}
        arms[name] = Arm(name, "pooled", f"pooled, {name}", budget="samples", changes=changes, share=share)
    return tuple(arms.values())


def privacy_arms(params: Params) -> tuple[Arm, ...]:
    """Federations that differ in their privacy alone.

    Without privacy; clipped, with noise too small to hide anything, which shows what clipping and a normalisation that
    asks no site cost; at several budgets, all of them spent in the last round; and noised at the sites at the middle
    one.
    """
    rounds, middle = params.federation.rounds, EPSILONS[1]
    # Losses are told with little effect at any budget: their cost grows with the rounds, so their noise does.
    told = max(params.privacy.report_noise_multiplier, 4.0 * rounds**0.5)

    def arm(name: str, about: str, epsilon: float, noise: float | None = None, **privacy: str) -> Arm:
        settings = {"mode": "central", "clip": "adaptive", "target_epsilon": epsilon, "report_noise_multiplier": told}
        changes = {f"privacy.{key}": value for key, value in (settings | privacy).items()}
        if noise is None:  # what spends the budget over the rounds
            noise = round(calibrated_noise(with_changes(params, changes).privacy, rounds), 4) + 1e-4
        return Arm(name, "federated", about, changes=changes | {"privacy.noise_multiplier": noise})

    budgets = ((epsilon, f"epsilon {epsilon:g}") for epsilon in EPSILONS)
    return (
        Arm("no privacy", "federated", "no privacy; the sites tell their normalisation"),
        arm("clipped only", "updates clipped, the base's normalisation, no noise to speak of", 1e9, noise=1e-3),
        *(arm(name, f"the server noises the mean; {name} in all", epsilon) for epsilon, name in budgets),
        arm(
            f"epsilon {middle:g} at each site",
            f"every site noises its own update; epsilon {middle:g} in all",
            middle,
            mode="site",
            clip="fixed",
        ),
    )


def arm_named(arms: Sequence[Arm], name: str) -> Arm:
    """The arm of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    found = {arm.name: arm for arm in arms}
    if name not in found:
        raise ValueError(f"there is no arm '{name}' in this study{nearest_hint(name, found)}")
    return found[name]
