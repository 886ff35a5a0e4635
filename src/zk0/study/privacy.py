"""What privacy costs, where it can make sense and where it cannot, as arms. Nothing heavy is imported here.

The noise on the mean is noise_multiplier * clip / sites in every value that trains: its effect falls with the number
of sites and grows with the square root of the number of values. Hundreds of sites that train small adapters may pay
little; four sites that train the whole expert drown in it.
"""

from __future__ import annotations

from typing import Any

from zk0.federation.privacy.accountant import calibrated_noise
from zk0.params import Params, with_changes
from zk0.study.arms import Arm

EPSILONS = (4.0, 8.0, 32.0)
_MIDDLE = EPSILONS[1]
# A site needs two training episodes and one to be judged on.
_EPISODES_OF_A_SITE = 3
_SHARED = {"federation.weighting": "equal", "privacy.mode": "off", "study.variants": {}}


def few_sites_changes() -> dict[str, Any]:
    """What all arms have in common at the params' own sites and view, as dotted params."""
    return dict(_SHARED)


def many_sites_changes(params: Params) -> dict[str, Any]:
    """What all arms have in common where small adapters train on many sites, as dotted params.

    The first source is recorded five times over and dealt by threes: 120 episodes make 200 sites.

    Args:
        params: To be changed.
    """
    name, source = next(iter(params.data.sites.items()))
    sites = 5 * params.data.episodes // _EPISODES_OF_A_SITE
    return _SHARED | {
        "data.sites": {name: source},
        "data.unseen": {},
        "data.partition.scheme": "equal",
        "data.partition.sites": sites,
        "data.episodes": sites * _EPISODES_OF_A_SITE,
        "data.held_out": 1 / _EPISODES_OF_A_SITE,
        "policy.lora_rank": 4,
        "training.local_steps": min(params.training.local_steps, 8),
        "training.batch": 8,
        "training.warmup_steps": 0,
        "federation.rounds": min(params.federation.rounds, 10),
        "study.scenes": min(params.study.scenes, 50),
    }


def privacy_arms(params: Params) -> tuple[Arm, ...]:
    """The arms, each a federation that differs in its privacy alone.

    Without privacy; clipped, with noise too small to hide anything, which shows what clipping and a normalisation that
    asks no site cost; at several budgets, all of them spent in the last round; and noised at the sites at the middle
    one.

    Args:
        params: With the shared changes made.
    """
    clipped = _settings(params, epsilon=1e9, noise_multiplier=1e-3)
    return (
        _arm("no privacy", "no privacy; the sites tell their normalisation", {}),
        _arm("clipped only", "updates clipped, the base's normalisation, no noise to speak of", clipped),
        *(
            _arm(
                f"epsilon {epsilon:g}",
                f"the server noises the mean; epsilon {epsilon:g} in all",
                _spent(params, epsilon),
            )
            for epsilon in EPSILONS
        ),
        _arm(
            f"epsilon {_MIDDLE:g} at each site",
            f"every site noises its own update; epsilon {_MIDDLE:g} in all",
            _spent(params, _MIDDLE, mode="site", clip="fixed"),
        ),
    )


def _arm(name: str, about: str, changes: dict[str, Any]) -> Arm:
    return Arm(name, "federated", about, changes=changes)


def _spent(params: Params, epsilon: float, **privacy: Any) -> dict[str, Any]:
    """Settings whose noise spends a budget over the rounds."""
    changes = _settings(params, epsilon, **privacy)
    noise = calibrated_noise(with_changes(params, changes).privacy, params.federation.rounds)
    return changes | {"privacy.noise_multiplier": round(noise, 4) + 1e-4}


def _settings(params: Params, epsilon: float, **privacy: Any) -> dict[str, Any]:
    # Losses are told with little effect at any budget: their cost grows with the rounds, so their noise does.
    told = max(params.privacy.report_noise_multiplier, 4.0 * params.federation.rounds**0.5)
    settings = {"mode": "central", "clip": "adaptive", "target_epsilon": epsilon, "report_noise_multiplier": told}
    return {f"privacy.{name}": value for name, value in (settings | privacy).items()}
