"""Combine the sites' updates, one at a time: start, fold, finish.

The weighted mean is McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (FedAvg). FedProx averages the same way; its difference is in the
sites' loss. What becomes of the combined update is the server optimiser's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, Self

import torch

from zk0.errors import StageError
from zk0.params import Params
from zk0.policy.trainable import TensorMismatch, Tensors, check_alike, update_norm

_STEPS_TIMES, _NOISE_TIMES = 100.0, 4.0
_LARGEST = torch.finfo(torch.float32).max


class Aggregator(Protocol):
    """Takes updates as they come and makes one of them.

    Use as a context: leaving it frees what the updates took, on disk too.

    Example:
        >>> with StreamingMean({"w": torch.tensor([1.0])}) as mean:
        ...     mean.fold({"w": torch.tensor([1.0])}, weight=3)
        ...     mean.fold({"w": torch.tensor([-1.0])}, weight=1)
        ...     mean.finish()
        1.0
        1.0
        {'w': tensor([0.5000])}
    """

    def fold(self, delta: Mapping[str, torch.Tensor], weight: float, longest: float = math.inf) -> float:
        """Take one site's update (its tensors less the global ones), which is only read.

        Fold in partition order: floating-point sums depend on it.

        Args:
            delta: The update, float32 or what the model's dtypes are.
            weight: Above 0 and finite.
            longest: An update of a larger Euclidean norm is refused; see :func:`longest_update`.

        Returns:
            The update's Euclidean norm.

        Raises:
            TensorMismatch: The update does not fit or is not finite; nothing was taken.
            ValueError: The weight is not positive and finite; nothing was taken.
        """
        ...

    def finish(self) -> Tensors:
        """The combined update, in float32; the caller may write to it. The aggregator is empty again.

        Raises:
            StageError: Too few updates were folded.
        """
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class StreamingMean(Aggregator):
    """The weighted mean Delta = sum n_k delta_k / sum n_k, by way of one sum: replies may not fit in memory together.

    Memory is the sum's, one float32 value for each that trains, however many sites there are.
    """

    def __init__(self, start: Mapping[str, torch.Tensor]) -> None:
        """Average updates of these tensors, which are not changed."""
        self._start = start
        self._sum: Tensors = {}
        self._weight = self._bound = 0.0

    def fold(self, delta: Mapping[str, torch.Tensor], weight: float, longest: float = math.inf) -> float:
        """Add an update, times its weight; see :meth:`Aggregator.fold`."""
        norm = check_update(delta, weight, self._start, longest)
        # No value is larger than its update's norm, so no partial sum can be larger than this.
        bound = self._bound + weight * norm
        if bound > _LARGEST:
            raise TensorMismatch(f"the update's norm of {norm:.3g}, weighted by {weight:g}, is beyond float32")
        if self._sum:
            for name, total in self._sum.items():
                total.add_(delta[name].to(torch.float32), alpha=weight)
        else:
            self._sum = {
                name: torch.mul(delta[name].to(torch.float32), weight, out=torch.empty(tensor.shape))
                for name, tensor in self._start.items()
            }
        self._weight, self._bound = self._weight + weight, bound
        return norm

    def finish(self) -> Tensors:
        """The mean, in the sum's memory; see :meth:`Aggregator.finish`."""
        if not self._weight:
            raise StageError("there is no update to average")
        mean, weight = self._sum, self._weight
        self._sum, self._weight, self._bound = {}, 0.0, 0.0
        for tensor in mean.values():
            tensor.div_(weight)
        return mean


def longest_update(params: Params, values: int, private: bool) -> float:
    """The Euclidean norm beyond which no site that trained as it was asked to can be.

    AdamW moves a value by about its learning rate in a step (Kingma and Ba, "Adam: A Method for Stochastic
    Optimization", ICLR 2015, section 2.1); a hundred times that leaves room for decay and a codec's carried error.
    Noise for privacy's sake is of the clip norm times its multiplier on each value; four times that leaves room for an
    owner's own, stricter settings. Twenty-five times as much left a model whose gradients overflowed, at all sites.

    Args:
        params: The run's.
        values: How many train.
        private: Whether the site adds noise.
    """
    farthest = _STEPS_TIMES * params.training.learning_rate * params.training.local_steps
    if private:
        farthest += _NOISE_TIMES * params.privacy.clip_norm * (1 + params.privacy.noise_multiplier)
    return farthest * math.sqrt(values)


def check_update(
    delta: Mapping[str, torch.Tensor], weight: float, start: Mapping[str, torch.Tensor], longest: float = math.inf
) -> float:
    """Refuse an update that must not be combined with others; see :meth:`Aggregator.fold`.

    Returns:
        Its Euclidean norm.
    """
    if not 0 < weight < math.inf:
        raise ValueError(f"an update's weight must be above 0 and finite, got {weight}")
    check_alike(delta, start)
    norm = update_norm(delta)
    if norm > longest:
        raise TensorMismatch(f"the update's norm is {norm:.3g}; training as asked for leads to {longest:.3g} at most")
    return norm
