"""Settings that measure what privacy costs: where it can make sense, and where it cannot.

The noise on the mean is noise_multiplier * clip / sites in every value that trains: its effect falls with the number
of sites and grows with the square root of the number of values. Hundreds of sites that train small adapters may pay
little; four sites that train the whole expert drown in it. Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any, Literal

from zk0.federation.privacy.accountant import calibrated_noise
from zk0.params import Params, with_changes

Scale = Literal["many", "few"]

EPSILONS = (4.0, 8.0, 32.0)
MANY_SITES = 200
# A site needs two training episodes and one to be judged on.
_EPISODES_OF_A_SITE = 3


def shared_changes(params: Params, scale: Scale) -> dict[str, Any]:
    """What all arms at a scale have in common, as dotted params, see :func:`zk0.params.with_changes`.

    Args:
        params: To be changed. At ``many``, its first source is dealt to all sites; it must have 600 episodes, or
            record them.
        scale: ``many`` are 200 sites that train adapters of rank 4, ``few`` are the params' own sites and view.
    """
    equal = {"federation.weighting": "equal", "privacy.mode": "off"}
    if scale == "few":
        return equal
    name, source = next(iter(params.data.sites.items()))
    return equal | {
        "data.sites": {name: source},
        "data.unseen": {},
        "data.partition.scheme": "equal",
        "data.partition.sites": MANY_SITES,
        "data.episodes": MANY_SITES * _EPISODES_OF_A_SITE,
        "data.held_out": 1 / _EPISODES_OF_A_SITE,
        "policy.lora_rank": 4,
        "training.local_steps": 5,
        "training.batch": 8,
        "training.warmup_steps": 0,
        "federation.rounds": 20,
    }


def privacy_variants(params: Params, scale: Scale) -> dict[str, dict[str, Any]]:
    """Arms by name, each as what it changes beside :func:`shared_changes`.

    Without privacy; clipped, with noise too small to hide anything, which shows what clipping alone costs; at several
    budgets, all of them spent in the last round; and noised at the sites at the middle one.

    Args:
        params: With the shared changes made.
        scale: As there.
    """
    arms: dict[str, dict[str, Any]] = {
        "no privacy": {},
        "clipped only": _arm(params, epsilon=1e9, clip="adaptive", noise_multiplier=1e-3),
    }
    for epsilon in EPSILONS:
        arms[f"epsilon {epsilon:g}"] = _spent(params, epsilon, clip="adaptive")
    middle = EPSILONS[len(EPSILONS) // 2]
    arms[f"epsilon {middle:g}, fixed clip"] = _spent(params, middle)
    arms[f"epsilon {middle:g} at each site"] = _spent(params, middle, mode="site")
    return arms if scale == "many" else {name: arm for name, arm in arms.items() if "fixed" not in name}


def _spent(params: Params, epsilon: float, **privacy: Any) -> dict[str, Any]:
    """An arm whose noise spends a budget over its rounds."""
    changes = _arm(params, epsilon, **privacy)
    settings = with_changes(params, changes)
    noise = calibrated_noise(settings.privacy, params.federation.rounds)
    return changes | {"privacy.noise_multiplier": round(noise, 4) + 1e-4}


def _arm(params: Params, epsilon: float, **privacy: Any) -> dict[str, Any]:
    # Losses are told with little effect at any budget: their cost grows with the rounds, so their noise does.
    told = max(params.privacy.report_noise_multiplier, 4.0 * params.federation.rounds**0.5)
    settings = {"mode": "central", "target_epsilon": epsilon, "report_noise_multiplier": told} | privacy
    return {f"privacy.{name}": value for name, value in settings.items()}
