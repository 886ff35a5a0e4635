"""What was spent: every release's noise is noted before it is made, and never forgotten.

Releases are composed by Renyi differential privacy (Mironov, "Renyi Differential Privacy", CSF 2017;
sampled releases: Mironov, Talwar & Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism",
2019), by Google's dp-accounting. Two federations are neighbours if they differ in that one site contributes nothing
to one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from zk0.errors import StageError
from zk0.files import read_json, write_json
from zk0.params import PrivacyParams

TRAINING = "training"
EVALUATION = "evaluation"


class BudgetSpent(StageError):
    """A release would exceed the privacy budget; it was not made."""


@dataclass(frozen=True)
class Charge:
    """A release that Gaussian noise protects.

    Attributes:
        round: In which it was made.
        what: ``training`` (the model, and what is told of the round's training) or ``evaluation``.
        noise_multiplier: Standard deviation of the noise, in what one site can change.
        sampling: Chance that a site takes part, drawn for each by itself and kept secret (1 = it is not).
    """

    round: int
    what: str
    noise_multiplier: float
    sampling: float = 1.0


def joint_multiplier(*multipliers: float) -> float:
    """The noise multiplier of several releases about the same sites, made together.

    Gaussian noise on parts that are each measured in their own noise is noise on the whole: a site's changes to them
    add up as squares.

    >>> joint_multiplier(1.0, 1.0)
    0.7071067811865475
    """
    return 1 / math.hypot(*(1 / multiplier for multiplier in multipliers))


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """The smallest epsilon, for this delta, that the accountant can prove of all these releases together."""
    counted = Counter((charge.noise_multiplier, charge.sampling) for charge in charges)
    return _epsilon(tuple(sorted(counted.items())), delta)


@lru_cache(maxsize=1024)
def _epsilon(counted: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    if not counted:
        return 0.0
    from dp_accounting import (  # noqa: PLC0415 - takes a second, and most runs are not private
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
    )
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - as above

    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
    for (multiplier, sampling), count in counted:
        event = GaussianDpEvent(multiplier)
        accountant.compose(event if sampling == 1 else PoissonSampledDpEvent(sampling, event), count)
    return float(accountant.get_epsilon(delta))


def training_charge(params: PrivacyParams, number: int) -> Charge:
    """Of a round's training: the update, the training loss and, where the clip adapts, the count."""
    told = [params.report_noise_multiplier] * (2 if params.clip == "adaptive" else 1)
    return Charge(number, TRAINING, joint_multiplier(params.noise_multiplier, *told))


def evaluation_charge(params: PrivacyParams, number: int) -> Charge:
    """Of a round's held-out loss."""
    return Charge(number, EVALUATION, params.report_noise_multiplier)


def round_charges(params: PrivacyParams, number: int) -> tuple[Charge, ...]:
    """All that a round releases; round 0 only evaluates."""
    evaluated = evaluation_charge(params, number)
    return (training_charge(params, number), evaluated) if number else (evaluated,)


def planned_epsilon(params: PrivacyParams, rounds: int) -> float:
    """Epsilon after so many rounds, if none is taken up twice."""
    return epsilon_of([c for number in range(rounds + 1) for c in round_charges(params, number)], params.delta)


def affordable_rounds(params: PrivacyParams, most: int) -> int:
    """How many rounds, up to ``most``, the budget affords; -1 where not even round 0 fits."""
    fits, too_many = -1, most + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if planned_epsilon(params, middle) <= params.target_epsilon:
            fits = middle
        else:
            too_many = middle
    return fits


def calibrated_noise(params: PrivacyParams, rounds: int) -> float:
    """The smallest noise multiplier, to 1 in 1,000, with which the budget affords so many rounds.

    Args:
        params: All but ``noise_multiplier`` counts.
        rounds: At least 1.

    Raises:
        StageError: The losses and the count alone cost more; says what they cost.
    """

    def cost(multiplier: float) -> float:
        return planned_epsilon(params.model_copy(update={"noise_multiplier": multiplier}), rounds)

    low, high = 1e-3, 1e6
    if cost(high) > params.target_epsilon:
        raise StageError(
            f"what {rounds} rounds tell besides the model costs epsilon {cost(high):.3g} of privacy.target_epsilon "
            f"{params.target_epsilon:g}; raise privacy.report_noise_multiplier or the budget"
        )
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if cost(middle) <= params.target_epsilon else (middle, high)
    return high


class Ledger:
    """The charges of a run, in a file that is written before what they pay for is released.

    So a run that is killed between the two has paid for nothing, and never released something unpaid.

    Args:
        path: The file; what it holds stays charged.
        params: Budget and delta.

    Raises:
        StageError: The file is damaged.
    """

    def __init__(self, path: Path, params: PrivacyParams) -> None:
        self._path, self._params = path, params
        self.charges: list[Charge] = _read(path) if path.exists() else []

    def resume(self, earlier: Sequence[Charge]) -> None:
        """Go on from a state: its charges are counted even if the file has been lost since.

        Raises:
            StageError: The file tells another story.
        """
        shorter, longer = sorted((self.charges, list(earlier)), key=len)
        if longer[: len(shorter)] != shorter:
            raise StageError(
                f"{self._path} does not begin with the charges of the state that is resumed: one of them is another "
                "run's. Restore the file; without it nobody knows what was spent"
            )
        self.charges = longer

    @property
    def epsilon(self) -> float:
        """Spent so far, at the budget's delta."""
        return epsilon_of(self.charges, self._params.delta)

    def affords(self, *charges: Charge) -> bool:
        """Whether the budget has room for these."""
        return epsilon_of([*self.charges, *charges], self._params.delta) <= self._params.target_epsilon

    def charge(self, charge: Charge) -> None:
        """Note a release; it may be made once this has returned.

        Raises:
            BudgetSpent: It would exceed the budget.
        """
        if not self.affords(charge):
            raise BudgetSpent(
                f"the {charge.what} of round {charge.round} would exceed privacy.target_epsilon "
                f"{self._params.target_epsilon:g} at delta {self._params.delta:g}; {self.epsilon:.3f} are spent"
            )
        record = [asdict(one) for one in (*self.charges, charge)]
        write_json(self._path, {"charges": record})
        self.charges.append(charge)


def _read(path: Path) -> list[Charge]:
    try:
        return [Charge(**record) for record in read_json(path)["charges"]]
    except (ValueError, TypeError, KeyError) as error:
        raise StageError(
            f"{path}, which holds what was spent of the privacy budget, is damaged ({error}); restore it. Without it "
            "nobody knows what was released"
        ) from error
