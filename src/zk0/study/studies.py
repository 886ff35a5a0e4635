"""The studies by name: which arms, on which params, training seeds and scenes. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from zk0.errors import StageError
from zk0.params import ROBUST, Params, ParamsError, Strategy, with_changes
from zk0.sources import Source
from zk0.study import arms
from zk0.study.arms import Arm
from zk0.words import nearest_hint

ATTACKS = ("sign-flip", "shuffled-labels")
OWNERS_EPISODES = 15


@dataclass(frozen=True)
class Study:
    """A set of arms that are compared.

    Attributes:
        name: Also of its folder in results/studies.
        title, about: For people.
        params: Shared by all arms; its ``seed`` decides recordings and held-out episodes, and fixes the noise and
            times with which models are judged.
        arms: In the order in which they are shown.
        seeds: Training seeds.
        scenes: Seeds of the closed-loop episodes.
        quick: Small sizes, to see it work.
        shortened: Fewer training seeds than the study has.
    """

    name: str
    title: str
    about: str
    params: Params
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scenes: range
    quick: bool = False
    shortened: bool = False

    @property
    def command(self) -> str:
        """Runs it, or goes on with it."""
        options = " --quick" * self.quick
        options += f" --seeds {len(self.seeds)}" * self.shortened
        return f"zk0 study {self.name.removesuffix('-quick')}{options}"


@dataclass(frozen=True)
class Recipe:
    """How a study is made of a project's params.

    Attributes:
        title: For people.
        about: For people; ``{study}`` are the params' own settings of studies, ``{sites}`` the number of sites.
        arms: Of the study's params.
        changes: Dotted params to values, which all arms share.
        seeds: Which of the params' training seeds.
        scenes: Where the closed-loop scenes begin: ``final`` are those of the comparison, ``confirmation`` others
            that nothing else uses, ``development`` those by which profiles are chosen.
    """

    title: str
    about: str
    arms: Callable[[Params], tuple[Arm, ...]]
    changes: Callable[[Params], Mapping[str, object]] = lambda _: {}
    seeds: slice = slice(None)
    scenes: Literal["final", "confirmation", "development"] = "final"

    def study(self, name: str, params: Params) -> Study:
        """The study of that name of these params.

        Raises:
            StageError: What it needs cannot be made of them.
        """
        params = with_changes(params, self.changes(params))
        own = params.study
        first = {
            "final": own.final_seed,
            "confirmation": own.final_seed + own.scenes,
            "development": params.evaluation.seed,
        }[self.scenes]
        return Study(
            name=name,
            title=self.title,
            about=self.about.format(study=own, sites=len(arms.site_names(params.data))),
            params=params,
            arms=self.arms(params),
            seeds=own.training_seeds[self.seeds] or own.training_seeds,
            scenes=range(first, first + own.scenes),
        )


def _comparison(params: Params) -> tuple[Arm, ...]:
    """Base, each site alone, all data in one place at both budgets, federated, and its variants."""
    return (
        arms.base(),
        *map(arms.alone, arms.site_names(params.data)),
        arms.pooled("steps"),
        arms.pooled("samples"),
        arms.federated(),
        *(arms.federated(name, changes) for name, changes in params.study.variants.items()),
    )


def _personalisation(params: Params) -> tuple[Arm, ...]:
    """A few local steps from the global model, beside the global model and training alone."""
    sites = arms.site_names(params.data)
    return (arms.federated(), *map(arms.alone, sites), *map(arms.personalised, sites))


def _owners(params: Params) -> tuple[Arm, ...]:
    """The comparison, each site alone judged at home only, and those who join late."""
    every = [replace(arm, own_task_only=arm.kind == "alone") for arm in _comparison(params)]
    return (*every, *arms.newcomer_arms(params.data))


def _few_episodes(params: Params) -> dict[str, object]:
    """Owners in rooms of their own have few of the episodes that are recorded; those who join late may have all."""
    data = params.data
    sources = [*data.sites.values(), *data.unseen.values()]
    rooms = {Source.parse(text).room for text in sources} - {None}  # only simulated ones have any
    if len(rooms) < len(sources) or not data.unseen:
        raise StageError(
            "the study of rooms needs a room of its own for every one of data.sites and data.unseen (sim:TASK@ROOM), "
            f"at least one of each; found {len(rooms)} rooms for {len(data.sites)} sites and {len(data.unseen)} "
            "unseen. `zk0 profile use rooms` has them"
        )
    more = range(OWNERS_EPISODES, data.episodes)
    return {
        "data.leave_out": {site: (*data.leave_out.get(site, ()), *more) for site in data.sites} if more else {},
        "privacy.mode": "off",
    }


def _under_attack(strategies: Iterable[Strategy]) -> tuple[Arm, ...]:
    """Each strategy among honest sites, and under each attack."""
    chosen = tuple(dict.fromkeys(strategies))
    return tuple(arms.attacked(strategy, attack) for attack in (None, *ATTACKS) for strategy in chosen)


def _one_of_eight(params: Params) -> dict[str, object]:
    """Two sites for every simulated task, with recordings of their own; arms make one of them malicious."""
    kinds = {Source.parse(text).kind for text in params.data.sites.values()}
    if kinds != {"sim"} or params.data.partition.scheme != "none":
        raise StageError(
            "the robustness study records every site's task twice, so data.sites must be sim: sources and "
            f"data.partition.scheme none; found {', '.join(sorted(kinds))} and {params.data.partition.scheme}"
        )
    return {
        "data.sites": {f"{name}-{part}": text for name, text in params.data.sites.items() for part in ("a", "b")},
        "federation.rounds": max(1, params.federation.rounds // 2),  # twice the sites: as many steps in all
        "study.variants": {},
        "privacy.mode": "off",
    }


_PRIVACY = {"federation.weighting": "equal", "privacy.mode": "off", "study.variants": {}}


def _many_sites(params: Params) -> dict[str, object]:
    """Small adapters train on many sites: the first source is recorded five times over and dealt by threes.

    A site needs two training episodes and one to be judged on; 120 episodes make 200 sites.
    """
    name, source = next(iter(params.data.sites.items()))
    sites = 5 * params.data.episodes // 3
    return _PRIVACY | {
        "data.sites": {name: source},
        "data.unseen": {},
        "data.partition.scheme": "equal",
        "data.partition.sites": sites,
        "data.episodes": sites * 3,
        "data.held_out": 1 / 3,
        "policy.lora_rank": 4,
        "training.local_steps": min(params.training.local_steps, 8),
        "training.batch": 8,
        "training.warmup_steps": 0,
        "federation.rounds": min(params.federation.rounds, 10),
        "study.scenes": min(params.study.scenes, 50),
    }


# What privacy costs: the noise on the mean is noise_multiplier * clip / sites in every value that trains. Its effect
# falls with the number of sites and grows with the square root of the number of values. Hundreds of sites that train
# small adapters may pay little; four sites that train the whole expert drown in it.
RECIPES: dict[str, Recipe] = {
    "comparison": Recipe(
        "Comparison",
        "Does federation help? Every arm is trained from the same base on the same recordings and judged on the same "
        "scenes and held-out episodes, none of which any arm has seen.",
        _comparison,
    ),
    "personalisation": Recipe(
        "Personalisation",
        "What an owner gains on the own task by {study.personal_steps} steps from the global model, beside the "
        "global model as it is and training alone from the base.",
        _personalisation,
    ),
    "rooms": Recipe(
        "Owners who differ",
        "{sites} owners, each with a room of its own and few episodes of its task. Every model is judged on each "
        "owner's task in that owner's room. Then owners join who had no part in it, each in a room that nobody had.",
        _owners,
        _few_episodes,
    ),
    "robustness": Recipe(
        "Robustness",
        "{sites} sites, two with each task, one of them malicious, in half as many rounds as the "
        "comparison's, so that all sites together take as many steps. The strategy that params choose is "
        "{study.robust_strategy}; it is to keep 90% of its success without an attack.",
        lambda params: _under_attack(("fedavg", *ROBUST, params.study.robust_strategy)),
        _one_of_eight,
    ),
    "robustness-confirmation": Recipe(
        "Robustness, confirmed",
        "The robustness study's sites and attacks once more, for {study.robust_strategy}, which the params choose, "
        "and plain FedAvg only: with other training seeds, and on scenes that no other study uses. The recordings, "
        "and who is malicious, are the same.",
        lambda params: _under_attack(("fedavg", params.study.robust_strategy)),
        _one_of_eight,
        seeds=slice(1, None),
        scenes="confirmation",
    ),
    "privacy": Recipe(
        "Privacy, few sites",
        "Client-level differential privacy where it cannot make sense: {sites} sites, and the whole expert trained. "
        "Shown because a run says nothing of it by itself.",
        arms.privacy_arms,
        lambda _: _PRIVACY,
    ),
    "privacy-many": Recipe(
        "Privacy, many sites",
        "Client-level differential privacy where it can make sense: {sites} sites with two training episodes each, "
        "all of one task, and adapters of rank 4.",
        arms.privacy_arms,
        _many_sites,
    ),
    # It sets the profile ``quality``, which the comparison judges on scenes of its own, from the same recordings.
    "feasibility": Recipe(
        "Feasibility",
        "How closed-loop success of training in one place grows with demonstrations, optimiser steps and trainable "
        "size. On development scenes and one training seed: it chooses a profile, it proves nothing.",
        arms.feasibility_arms,
        lambda params: {"study.scenes": min(params.study.scenes, 50), "study.variants": {}},
        seeds=slice(1),
        scenes="development",
    ),
}


def study_named(name: str, params: Params, quick: bool = False, seeds: int | None = None) -> Study:
    """A study of these params.

    Args:
        name: One of ``RECIPES``.
        params: The project's.
        quick: At small sizes, under a name of its own: it shows that everything works and says nothing else.
        seeds: Only so many training seeds, the first ones (None = all that the study has).

    Raises:
        ValueError: There is no such study; names the nearest.
        ParamsError: What an arm changes cannot be; names the arm.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no study '{name}'{nearest_hint(name, RECIPES)}")
    study = RECIPES[name].study(name, in_minutes(params) if quick else params)
    for arm in study.arms:  # refuse now what could not be run in an hour
        try:
            arm.params(study.params)
        except ParamsError as error:
            raise ParamsError(f"arm '{arm.name}': {str(error).removeprefix('changes: ')}") from error
    if quick:
        study = replace(study, name=f"{name}-quick", quick=True)
    chosen = study.seeds[:seeds]
    return replace(study, seeds=chosen, shortened=chosen != study.seeds)


def in_minutes(params: Params) -> Params:
    """The same params at sizes by which a study takes minutes: they show that it works, and nothing else."""
    settings, study = params.training, params.study
    changes = {
        "data.episodes": min(params.data.episodes, 6),
        "training.local_steps": min(settings.local_steps, 4),
        "training.batch": min(settings.batch, 8),
        "training.warmup_steps": min(settings.warmup_steps, 1),
        "training.decay_steps": 0,
        "federation.rounds": min(params.federation.rounds, 2),
        "study.scenes": min(study.scenes, 4),
        "study.personal_steps": 4,
        "study.training_seeds": study.training_seeds[:2],
        "evaluation.loss_draws": 1,
        "evaluation.rollouts": min(params.evaluation.rollouts, 4),
    }
    return with_changes(params, changes)
