"""What is compared, as data: one arm is one way of getting a model. Nothing heavy is imported here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from zk0.params import DataParams, Params, with_changes
from zk0.words import nearest_hint

Kind = Literal["base", "alone", "pooled", "federated", "personalised"]
Budget = Literal["steps", "samples"]

FEDERATED = "federated"
POISONED_PARTITION = 1


@dataclass(frozen=True)
class Arm:
    """One way of getting a model.

    Attributes:
        name: Unique in a study.
        kind: ``base`` trains nothing; ``alone`` trains on one site's data; ``pooled`` on all sites' data in one
            place; ``federated`` by rounds; ``personalised`` on one site's data from the global model.
        about: What it is, in a few words, for people.
        site: Whose data, of ``alone`` and ``personalised``.
        budget: Of ``pooled``: ``steps`` takes as many optimiser steps as one site, at the whole federation's
            batch; ``samples`` sees as many samples as all sites together, at one site's batch.
        changes: Dotted params to values, beside the study's own params.
        share: Of each site's training episodes, the first ones.
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
    changes: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
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
        return FEDERATED if self.kind == "personalised" else None

    def params(self, params: Params) -> Params:
        """A study's params as they hold for this arm.

        Raises:
            ParamsError: Its changes cannot be.
        """
        return with_changes(params, self.changes) if self.changes else params

    def key(self) -> dict[str, Any]:
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


def pooled(budget: Budget, **more: Any) -> Arm:
    """All data in one place, at one of the two budgets."""
    about = {
        "steps": "all data in one place; as many steps as one site takes, at the whole federation's batch",
        "samples": "all data in one place; as many samples as all sites see together, at one site's batch",
    }[budget]
    return Arm(f"pooled:{budget}", "pooled", about, budget=budget, **more)


def federated(variant: str | None = None, changes: Mapping[str, Any] | None = None) -> Arm:
    """The federation of the params, or a variant of it."""
    if variant is None:
        return Arm(FEDERATED, "federated", "federated as params.yaml says")
    told = ", ".join(f"{name} = {value}" for name, value in (changes or {}).items())
    return Arm(f"{FEDERATED}:{variant}", "federated", f"federated with {told}", changes=dict(changes or {}))


def personalised(site: str) -> Arm:
    """A few steps on a site's data from the global model, with the federation's normalisation."""
    about = f"the global model, trained further on the data of {site}"
    return Arm(f"personalised:{site}", "personalised", about, site=site, own_task_only=True)


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


def arm_named(arms: Sequence[Arm], name: str) -> Arm:
    """The arm of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    found = {arm.name: arm for arm in arms}
    if name not in found:
        raise ValueError(f"there is no arm '{name}' in this study{nearest_hint(name, found)}")
    return found[name]
