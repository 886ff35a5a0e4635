"""A site's own privacy: it clips and noises what it sends, so that not even the server sees its data's part.

Local noise in the sense of Kasiviswanathan et al., "What Can We Learn Privately?", SIAM Journal on Computing 2011,
with the site as the unit. A site counts what it spent over all runs, since the server could name a run anew, and
what its owner demands in the node's config holds whatever the server asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.federation.privacy.accountant import Ledger, evaluation_charge, training_charge
from zk0.federation.privacy.mechanism import add_noise, clip_factor, clipped, exact_norm, secure_normal
from zk0.params import PrivacyParams
from zk0.policy.trainable import TensorMismatch, Tensors

# Keys of a node's config, and how two demands for the same setting become one that meets both.
_PREFIX = "privacy-"
_STRICTER = {
    "clip_norm": min,
    "loss_bound": min,
    "noise_multiplier": max,
    "report_noise_multiplier": max,
    "target_epsilon": min,
    "delta": min,
}


def demanded(config: Mapping[str, Any]) -> dict[str, float]:
    """What a site's owner demands, by the node's config: ``privacy-noise-multiplier=1.0`` and the like.

    Raises:
        ValueError: A key is unknown or its value is no number; names it.
    """
    found = {}
    for key, value in config.items():
        if not str(key).startswith(_PREFIX):
            continue
        name = str(key).removeprefix(_PREFIX).replace("-", "_")
        if name not in _STRICTER:
            known = ", ".join(_PREFIX + name.replace("_", "-") for name in _STRICTER)
            raise ValueError(f"the node's config has '{key}', which is no privacy setting; there are {known}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the node's config has {key} = {value!r}, expected a number")
        found[name] = float(value)
    return found


def settings_of(asked: PrivacyParams, config: Mapping[str, Any]) -> PrivacyParams | None:
    """What a site does: what the server asks for and what its owner demands, the stricter of each.

    Args:
        asked: The run's settings, of which only those of mode ``site`` concern a site.
        config: The node's.

    Returns:
        Settings of mode ``site``; None where neither wants it.

    Raises:
        ValueError: See :func:`demanded`; or a demand is out of range.
    """
    owner = demanded(config)
    if asked.mode != "site" and not owner:
        return None
    base = asked if asked.mode == "site" else PrivacyParams()
    stricter = {name: _STRICTER[name](getattr(base, name), value) for name, value in owner.items()}
    return PrivacyParams.model_validate(base.model_dump() | stricter | {"mode": "site", "clip": "fixed"})


def ledger_of(root: Path, partition: int) -> Path:
    """Where a site counts what it spent, over all runs."""
    return root / "state" / "privacy" / f"site-{partition:04d}.json"


@dataclass
class SitePrivacy:
    """Of one site.

    Attributes:
        params: Of mode ``site``.
        ledger: What the site has released, in all runs.
    """

    params: PrivacyParams
    ledger: Ledger

    @classmethod
    def of(cls, asked: PrivacyParams, config: Mapping[str, Any]) -> SitePrivacy | None:
        """Of the site that a node serves; None where no one wants it.

        Raises:
            ValueError: See :func:`settings_of`.
            StageError: See :class:`Ledger`.
        """
        if (params := settings_of(asked, config)) is None:
            return None
        return cls(params, Ledger(ledger_of(Path(str(config["project"])), int(config["partition-id"])), params))

    def update(self, number: int, update: Tensors, residual: Mapping[str, Any]) -> Tensors:
        """Charge for an update, and clip and noise it, in place, with what its codec left over last time.

        The codec comes after: what it makes of a noised update tells no more than that does, and so does its error,
        which the next update carries.

        Args:
            number: The round.
            update: Float32; taken over.
            residual: By name; may be empty.

        Raises:
            BudgetSpent: It would exceed the budget; nothing is to be sent.
            TensorMismatch: A residual has no counterpart of its shape, or a value is not finite.
        """
        for name, left in residual.items():
            if name not in update or update[name].shape != left.shape:
                raise TensorMismatch(f"the residual of '{name}' has no tensor of shape {tuple(left.shape)}")
            update[name].add_(left)
        norm = exact_norm(update)
        if not norm < float("inf"):
            raise TensorMismatch(f"the update's norm is {norm}, expected a finite number")
        self.ledger.charge(training_charge(self.params, number))
        factor = clip_factor(norm, self.params.clip_norm)
        for tensor in update.values():
            tensor.mul_(factor)
        add_noise(update.values(), self.params.noise_multiplier * self.params.clip_norm)
        return update

    def training_loss(self, loss: float) -> float:
        """A training loss to be told; paid by the update's charge."""
        return self._noised(loss)

    def held_out_loss(self, number: int, loss: float) -> float:
        """A held-out loss to be told; charged here.

        Raises:
            BudgetSpent: It would exceed the budget; nothing is to be sent.
        """
        self.ledger.charge(evaluation_charge(self.params, number))
        return self._noised(loss)

    def _noised(self, loss: float) -> float:
        half = self.params.loss_bound / 2
        noise = float(secure_normal(1)[0]) * self.params.report_noise_multiplier * half
        return clipped(loss, self.params.loss_bound) + noise
