"""The server's part of central privacy: clip every site's update, average over a fixed number, add noise, charge.

DP-FedAvg: McMahan, Ramage, Talwar & Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018,
with a fixed denominator: a site that does not answer counts as one that changed nothing, so one site moves the mean
by at most clip / sites, whoever else answers. An update is clipped as it was decoded, with whatever error feedback its
site had added, so the bound holds for what is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from zk0.errors import StageError
from zk0.federation.aggregation import Aggregator, check_update
from zk0.federation.privacy.accountant import (
    Charge,
    Ledger,
    evaluation_charge,
    round_charges,
    training_charge,
)
from zk0.federation.privacy.mechanism import add_noise, clip_factor, clipped, exact_norm, next_clip, secure_normal
from zk0.params import PrivacyParams
from zk0.policy.trainable import Tensors

LEDGER = "privacy.json"
# Of a site's record of a round: what the params or the network decide, not its data.
_PUBLIC = ("examples", "bytes_up", "bytes_down")


class Remembered(TypedDict, total=False):
    """What a state keeps: the next round's clip norm, and every :class:`Charge`; empty where privacy is not central."""

    clip_norm: float
    charges: list[dict[str, Any]]


class PrivateMean(Aggregator):
    """The mean of clipped updates over a fixed number of sites, plus noise.

    Memory is the sum's, as in :class:`zk0.federation.aggregation.StreamingMean`.

    Args:
        start: Tensors that the updates are of; not changed.
        clip: Largest norm of an update.
        noise_multiplier: Standard deviation of the noise on the sum, in clips.
        sites: What the sum is divided by, however many updates come.
    """

    def __init__(self, start: Mapping[str, torch.Tensor], clip: float, noise_multiplier: float, sites: int) -> None:
        self._start, self._clip, self._sites = start, clip, sites
        self.deviation = noise_multiplier * clip / sites
        self._sum: Tensors = {}

    def fold(
        self,
        delta: Mapping[str, torch.Tensor],
        weight: float,
        longest: float = math.inf,  # noqa: ARG002 - what is too long is clipped
    ) -> float:
        """Add an update of any length, clipped; see :meth:`Aggregator.fold`.

        Returns:
            The update's norm before it was clipped.

        Raises:
            ValueError: The weight is not 1: no site may count for more than another.
        """
        check_update(delta, weight, self._start)
        if weight != 1:
            raise ValueError(f"under privacy every site counts the same; got weight {weight:g}, expected 1")
        norm = exact_norm(delta)
        factor = clip_factor(norm, self._clip)
        if not self._sum:
            self._sum = {name: torch.zeros(tensor.shape) for name, tensor in self._start.items()}
        for name, total in self._sum.items():
            total.add_(delta[name].to(torch.float32).mul(factor))
        return norm

    def finish(self) -> Tensors:
        """The noised mean; see :meth:`Aggregator.finish`. Charge for it before."""
        if not self._sum:
            raise StageError("there is no update to average")
        mean, self._sum = self._sum, {}
        for tensor in mean.values():
            tensor.div_(self._sites)
        add_noise(mean.values(), self.deviation)
        return mean


@dataclass
class CentralPrivacy:
    """Of one run.

    Attributes:
        params: The run's.
        ledger: What was released.
        sites: How many judge a model.
        drawn: How many train in a round.
    """

    params: PrivacyParams
    ledger: Ledger
    sites: int
    drawn: int

    @classmethod
    def open(cls, params: PrivacyParams, folder: Path, sites: int, drawn: int) -> CentralPrivacy:
        """For a run whose state is kept in a folder.

        Raises:
            StageError: See :class:`Ledger`.
        """
        return cls(params, Ledger(folder / LEDGER, params), sites, drawn)

    def resume(self, saved: Remembered) -> None:
        """Go on from what a state remembers; see :meth:`Ledger.resume`."""
        self.ledger.resume([Charge(**record) for record in saved.get("charges", ())])

    def clip(self, saved: Remembered) -> float:
        """The clip norm of the round after a state."""
        return saved.get("clip_norm", self.params.clip_norm)

    def aggregator(self, start: Mapping[str, torch.Tensor], saved: Remembered) -> PrivateMean:
        """For the round after a state."""
        return PrivateMean(start, self.clip(saved), self.params.noise_multiplier, self.drawn)

    def charge_training(self, number: int) -> None:
        """To be called before anything of a round's training is released.

        Raises:
            BudgetSpent: It would exceed the budget.
        """
        self.ledger.charge(training_charge(self.params, number))

    def held_out(self, number: int, losses: Sequence[float]) -> float:
        """The mean held-out loss to be told; charged here.

        Raises:
            BudgetSpent: It would exceed the budget.
        """
        self.ledger.charge(evaluation_charge(self.params, number))
        return self._mean_loss(losses, self.sites)

    def trained(self, saved: Remembered, records: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], float]:
        """What a round's row tells of its training, and the next round's clip norm; both paid by its charge.

        Args:
            saved: What the state before remembers.
            records: The sites' own, with ``train_loss`` and ``update_norm``.
        """
        clip = self.clip(saved)
        row = {
            "train_loss": self._mean_loss([record["train_loss"] for record in records], self.drawn),
            "clip_norm": clip,
            "noise_deviation": self.params.noise_multiplier * clip / self.drawn,
        }
        if self.params.clip == "fixed":
            return row, clip
        # Counted from the middle, so that one site changes the sum by a half (Andrew et al., section 2).
        middle = sum((record["update_norm"] <= clip) - 0.5 for record in records)
        noise = float(secure_normal(1)[0]) * self.params.report_noise_multiplier * 0.5
        share = 0.5 + (middle + noise) / self.drawn
        return row, next_clip(clip, share, self.params.clip_quantile, self.params.clip_learning_rate)

    def _mean_loss(self, losses: Sequence[float], sites: int) -> float:
        """Mean of losses clipped to 0 .. bound, with noise; counted from the middle, so one changes it half as much."""
        half = self.params.loss_bound / 2
        total = sum(clipped(loss, self.params.loss_bound) - half for loss in losses)
        noise = float(secure_normal(1)[0]) * self.params.report_noise_multiplier * half
        return half + (total + noise) / sites

    def spent(self) -> dict[str, float]:
        """What a round's row tells: epsilon so far, and delta."""
        return {"epsilon": self.ledger.epsilon, "delta": self.params.delta}

    def remembered(self, clip: float) -> Remembered:
        """For the state after a round."""
        return {"clip_norm": clip, "charges": [vars(charge) for charge in self.ledger.charges]}

    def stops(self, number: int) -> str | None:
        """Why the budget does not allow a round; None where it does."""
        if self.ledger.affords(*round_charges(self.params, number)):
            return None
        return (
            f"round {number} would exceed privacy.target_epsilon {self.params.target_epsilon:g}; "
            f"{self.ledger.epsilon:.3f} are spent at delta {self.params.delta:g}"
        )


def public_part(record: Mapping[str, float]) -> dict[str, float]:
    """Of a site's record of a round, what its data does not decide."""
    return {name: record[name] for name in _PUBLIC if name in record}
