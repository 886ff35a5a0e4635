"""The studies by name: which arms, on which params, training seeds and scenes. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from zk0.errors import StageError
from zk0.params import ROBUST, Params, ParamsError, Strategy, with_changes
from zk0.sources import Source
from zk0.study import arms
from zk0.study.arms import Arm
from zk0.study.feasibility import feasibility_arms, feasibility_changes
from zk0.study.privacy import few_sites_changes, many_sites_changes, privacy_arms
from zk0.words import nearest_hint

ATTACKS = ("sign-flip", "shuffled-labels")
ATTACKED_SITES = 8


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


def comparison(params: Params) -> Study:
    """Base, each site alone, all data in one place at both budgets, federated, and its variants."""
    sites = arms.site_names(params.data)
    variants = [arms.federated(name, changes) for name, changes in params.study.variants.items()]
    chosen = (
        arms.base(),
        *(arms.alone(site) for site in sites),
        arms.pooled("steps"),
        arms.pooled("samples"),
        arms.federated(),
        *variants,
    )
    about = (
        "Does federation help? Every arm is trained from the same base on the same recordings and judged on the same "
        "scenes and held-out episodes, none of which any arm has seen."
    )
    return Study("comparison", "Comparison", about, params, chosen, params.study.training_seeds, _final(params))


def personalisation(params: Params) -> Study:
    """A few local steps from the global model, beside the global model and training alone."""
    sites = arms.site_names(params.data)
    chosen = (
        arms.federated(),
        *(arms.alone(site) for site in sites),
        *(arms.personalised(site) for site in sites),
    )
    about = (
        f"What an owner gains on the own task by {params.study.personal_steps} steps from the global model, beside the "
        "global model as it is and training alone from the base."
    )
    return Study(
        "personalisation", "Personalisation", about, params, chosen, params.study.training_seeds, _final(params)
    )


def robustness(params: Params) -> Study:
    """Eight sites, one of them malicious, under each robust strategy and plain FedAvg."""
    params = _one_of_eight(params)
    about = (
        f"{len(params.data.sites)} sites, two with each task, one of them malicious, in half as many rounds as the "
        "comparison's, so that all sites together take as many steps. The strategy that params choose is "
        f"{params.study.robust_strategy}; it is to keep 90% of its success without an attack."
    )
    chosen = _under_attack(_robust(params))
    return Study("robustness", "Robustness", about, params, chosen, params.study.training_seeds, _final(params))


def robustness_confirmation(params: Params) -> Study:
    """The chosen robust strategy and plain FedAvg where the choice has seen nothing: other seeds, other scenes."""
    params = _one_of_eight(params)
    chosen = params.study.robust_strategy
    about = (
        f"The robustness study's sites and attacks once more, for {chosen}, which the params choose, and plain FedAvg "
        "only: with other training seeds, and on scenes that no other study uses. The recordings, and who is "
        "malicious, are the same."
    )
    seeds = params.study.training_seeds[1:] or params.study.training_seeds
    scenes = range(_final(params).stop, _final(params).stop + params.study.scenes)
    compared = _under_attack(dict.fromkeys(("fedavg", chosen)))
    return Study("robustness-confirmation", "Robustness, confirmed", about, params, compared, seeds, scenes)


def feasibility(params: Params) -> Study:
    """How success grows with data, steps and trainable size, on development scenes."""
    params = with_changes(params, feasibility_changes(params))
    about = (
        "How closed-loop success of training in one place grows with demonstrations, optimiser steps and trainable "
        "size. On development scenes and one training seed: it chooses a profile, it proves nothing."
    )
    seeds = params.study.training_seeds[:1]
    return Study("feasibility", "Feasibility", about, params, feasibility_arms(params), seeds, _development(params))


def privacy(params: Params) -> Study:
    """What differential privacy costs the params' own few sites, which train the whole expert."""
    params = with_changes(params, few_sites_changes())
    sites = len(arms.site_names(params.data))
    about = (
        f"Client-level differential privacy where it cannot make sense: {sites} sites, and the whole expert trained. "
        "Shown because a run says nothing of it by itself."
    )
    return Study(
        "privacy",
        "Privacy, few sites",
        about,
        params,
        privacy_arms(params),
        params.study.training_seeds,
        _final(params),
    )


def privacy_many(params: Params) -> Study:
    """What differential privacy costs many small sites, which train small adapters."""
    params = with_changes(params, many_sites_changes(params))
    sites = len(arms.site_names(params.data))
    about = (
        f"Client-level differential privacy where it can make sense: {sites} sites with two training episodes each, "
        "all of one task, and adapters of rank 4."
    )
    return Study(
        "privacy-many",
        "Privacy, many sites",
        about,
        params,
        privacy_arms(params),
        params.study.training_seeds,
        _final(params),
    )


STUDIES: dict[str, Callable[[Params], Study]] = {
    "comparison": comparison,
    "personalisation": personalisation,
    "robustness": robustness,
    "robustness-confirmation": robustness_confirmation,
    "privacy": privacy,
    "privacy-many": privacy_many,
    "feasibility": feasibility,
}


def study_named(name: str, params: Params, quick: bool = False, seeds: int | None = None) -> Study:
    """A study of these params.

    Args:
        name: One of ``STUDIES``.
        params: The project's.
        quick: At small sizes, under a name of its own: it shows that everything works and says nothing else.
        seeds: Only so many training seeds, the first ones (None = all that the study has).

    Raises:
        ValueError: There is no such study; names the nearest.
        ParamsError: What an arm changes cannot be; names the arm.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study '{name}'{nearest_hint(name, STUDIES)}")
    study = STUDIES[name](_small(params) if quick else params)
    for arm in study.arms:  # refuse now what could not be run in an hour
        try:
            arm.params(study.params)
        except ParamsError as error:
            raise ParamsError(f"arm '{arm.name}': {str(error).removeprefix('changes: ')}") from error
    if quick:
        study = replace(study, name=f"{name}-quick", quick=True)
    chosen = study.seeds[:seeds]
    return replace(study, seeds=chosen, shortened=chosen != study.seeds)


def _small(params: Params) -> Params:
    """The same study, in minutes."""
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
    }
    return with_changes(params, changes)


def _final(params: Params) -> range:
    return range(params.study.final_seed, params.study.final_seed + params.study.scenes)


def _development(params: Params) -> range:
    return range(params.evaluation.seed, params.evaluation.seed + params.study.scenes)


def _robust(params: Params) -> Sequence[Strategy]:
    """FedAvg, the strategies that withstand malicious sites, and the one that params chose."""
    return tuple(dict.fromkeys(("fedavg", *ROBUST, params.study.robust_strategy)))


def _one_of_eight(params: Params) -> Params:
    """Params of a federation of eight sites, of which arms make one malicious."""
    return with_changes(
        params,
        {
            "data.sites": _two_each(params),
            "federation.rounds": max(1, params.federation.rounds // 2),  # twice the sites: as many steps in all
            "study.variants": {},
            "privacy.mode": "off",
        },
    )


def _under_attack(strategies: Iterable[Strategy]) -> tuple[Arm, ...]:
    """Each strategy among honest sites, and under each attack."""
    return tuple(arms.attacked(strategy, attack) for attack in (None, *ATTACKS) for strategy in strategies)


def _two_each(params: Params) -> dict[str, str]:
    """Two sites for every simulated task, with recordings of their own; or one source dealt to eight."""
    kinds = {Source.parse(text).kind for text in params.data.sites.values()}
    if kinds != {"sim"} or params.data.partition.scheme != "none":
        raise StageError(
            "the robustness study records every site's task twice, so data.sites must be sim: sources and "
            f"data.partition.scheme none; found {', '.join(sorted(kinds))} and {params.data.partition.scheme}"
        )
    return {f"{name}-{part}": text for name, text in params.data.sites.items() for part in ("a", "b")}
