"""Average the sites' updates, one at a time: start, fold, finish.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017 (FedAvg). FedProx averages the same way; its difference is in the sites' loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from zk0.policy.trainable import Tensors, check_alike, check_finite


class Aggregator:
    """A weighted mean of updates with float32 accumulation and memory for one update.

    Fold in partition order: floating-point sums depend on it.

    Example:
        >>> mean = Aggregator({"w": torch.tensor([1.0])})
        >>> mean.fold({"w": torch.tensor([1.0])}, weight=3)
        >>> mean.fold({"w": torch.tensor([-1.0])}, weight=1)
        >>> mean.finish()
        {'w': tensor([1.5000])}
    """

    def __init__(self, start: Mapping[str, torch.Tensor]) -> None:
        """Start from the global model's tensors, which are not changed."""
        self._start = start
        self._sum = {name: torch.zeros_like(tensor, dtype=torch.float32) for name, tensor in start.items()}
        self._weight = 0.0

    def fold(self, delta: Mapping[str, torch.Tensor], weight: float) -> None:
        """Add one site's update (its tensors less the global ones).

        Raises:
            TensorMismatch: The update does not fit or is not finite; nothing was added.
            ValueError: The weight is not positive and finite.
        """
        if not 0 < weight < math.inf:
            raise ValueError(f"an update's weight must be above 0 and finite, got {weight}")
        check_alike(delta, self._start)
        check_finite(delta)
        for name, total in self._sum.items():
            total.add_(delta[name].to(torch.float32), alpha=weight)
        self._weight += weight

    def finish(self) -> Tensors:
        """The new global tensors.

        Raises:
            ValueError: Nothing was folded.
        """
        if not self._weight:
            raise ValueError("there is no update to average")
        return {
            name: (tensor.to(torch.float32) + self._sum[name] / self._weight).to(tensor.dtype)
            for name, tensor in self._start.items()
        }


def update_norm(delta: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm of an update over all its tensors."""
    return float(
        torch.sqrt(sum((t.double().square().sum() for t in delta.values()), torch.zeros((), dtype=torch.double)))
    )
