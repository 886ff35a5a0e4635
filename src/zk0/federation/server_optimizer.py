"""Server optimisers: what becomes of the global model, given the combined update.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (FedAdam, FedYogi); Hsu et al., "Measuring
the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019 (FedAvgM).
In both the combined update Delta_t stands for a negative gradient; eta is the rate, w_t the tensors, m_t the momentum,
v_t the second moment.

Each is a pure function of (state, tensors, update): the old state and tensors may still be on their
way to disk, and a round that is taken up again starts from them. Only the update's memory is used
again, for the result. The state is flat, "momentum/<tensor>" and "second/<tensor>" in float32, and
empty before the first round.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from zk0.policy.trainable import PIECE, TensorMismatch, Tensors

MOMENTUM = "momentum"
SECOND = "second"

_State = Mapping[str, torch.Tensor]


class ServerOptimizer(Protocol):
    """Takes a step of the global model.

    Example:
        >>> FedAvgM(rate=1.0, momentum=0.5).step({}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])})
        ({'w': tensor([3.])}, {'momentum/w': tensor([2.])})
    """

    def step(
        self, state: _State, tensors: Mapping[str, torch.Tensor], update: Tensors, reuse_state: bool = False
    ) -> tuple[Tensors, Tensors]:
        """Take a step.

        Args:
            state: As returned by the last step; empty before the first.
            tensors: The global model's; not changed.
            update: The combined update in float32, as :meth:`Aggregator.finish` returns it. Taken over.
            reuse_state: Write the new state into the old one's memory: allowed where nobody will read
                the old one again, and saves the model's size once (FedAvgM) or twice.

        Returns:
            New tensors, in the dtypes of the old, and new state.

        Raises:
            TensorMismatch: The state does not belong to this optimiser and these tensors; names the entry.
        """
        ...


@dataclass(frozen=True)
class FedAvg(ServerOptimizer):
    """w_t+1 = w_t + eta Delta_t; with rate 1 exactly their sum. It has no state.

    Attributes:
        rate: The server's learning rate.
    """

    rate: float = 1.0

    def step(
        self,
        state: _State,
        tensors: Mapping[str, torch.Tensor],
        update: Tensors,
        reuse_state: bool = False,  # noqa: ARG002 - there is none
    ) -> tuple[Tensors, Tensors]:
        """Add the update; see :meth:`ServerOptimizer.step`."""
        _check(state, (), tensors)
        for name, tensor in tensors.items():
            if self.rate != 1:
                update[name].mul_(self.rate)
            update[name].add_(tensor)
        return _as(update, tensors), {}


class _WithMoments(ServerOptimizer):
    """An optimiser that carries moments from round to round, each elementwise; kinds give :meth:`_advance`."""

    moments: ClassVar[tuple[str, ...]]

    def _initial(self, moment: str) -> float:  # noqa: ARG002 - kinds differ by it
        return 0.0

    @abstractmethod
    def _advance(
        self, step: torch.Tensor, old: torch.Tensor, before: list[torch.Tensor], after: list[torch.Tensor]
    ) -> None:
        """Turn ``step``, a piece of the update, into the new values; write the new moments to ``after``.

        ``after`` may be ``before``.
        """

    def step(
        self, state: _State, tensors: Mapping[str, torch.Tensor], update: Tensors, reuse_state: bool = False
    ) -> tuple[Tensors, Tensors]:
        """Advance the moments and step along them; see :meth:`ServerOptimizer.step`."""
        _check(state, self.moments, tensors)
        result: Tensors = {}
        for name, tensor in tensors.items():
            before, after = [], []
            for moment in self.moments:
                key = f"{moment}/{name}"
                own = key not in state
                old = torch.full(tensor.shape, self._initial(moment), dtype=torch.float32) if own else state[key]
                result[key] = old if own or reuse_state else torch.empty_like(old)
                before.append(torch.split(old.view(-1), PIECE))
                after.append(torch.split(result[key].view(-1), PIECE))
            pieces = zip(torch.split(update[name].view(-1), PIECE), torch.split(tensor.reshape(-1), PIECE), strict=True)
            for index, (moved, values) in enumerate(pieces):
                self._advance(moved, values.to(torch.float32), [b[index] for b in before], [a[index] for a in after])
        return _as(update, tensors), result


@dataclass(frozen=True)
class FedAvgM(_WithMoments):
    """m_t = beta m_t-1 + Delta_t; w_t+1 = w_t + eta m_t.

    As in Hsu et al. and in Flower's FedAvgM, the update is not damped by (1 - beta): in a long run a
    steady update moves the model 1 / (1 - beta) times as far as FedAvg does.

    Attributes:
        rate: The server's learning rate.
        momentum: beta, from 0 to below 1.
    """

    rate: float
    momentum: float
    moments: ClassVar[tuple[str, ...]] = (MOMENTUM,)

    def _advance(
        self, step: torch.Tensor, old: torch.Tensor, before: list[torch.Tensor], after: list[torch.Tensor]
    ) -> None:
        torch.add(step, before[0], alpha=self.momentum, out=after[0])
        torch.add(old, after[0], alpha=self.rate, out=step)


@dataclass(frozen=True)
class FedAdam(_WithMoments):
    """Adam on the server: Reddi et al., algorithm 2.

    m_t = beta1 m_t-1 + (1 - beta1) Delta_t; v_t = beta2 v_t-1 + (1 - beta2) Delta_t^2;
    w_t+1 = w_t + eta m_t / (sqrt(v_t) + tau).

    As in the paper the second moment begins at tau^2 and nothing is corrected for its bias. Flower's
    FedAdam begins it at 0 and multiplies the rate in its round t by
    sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1)).

    Attributes:
        rate: The server's learning rate.
        momentum: beta1, from 0 to below 1.
        beta2: From 0 to below 1.
        tau: Adaptivity; the smaller, the more alike all values' steps are.
    """

    rate: float
    momentum: float
    beta2: float
    tau: float
    moments: ClassVar[tuple[str, ...]] = (MOMENTUM, SECOND)

    def _initial(self, moment: str) -> float:
        return self.tau**2 if moment == SECOND else 0.0

    def _second(self, step: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        torch.mul(before, self.beta2, out=after).addcmul_(step, step, value=1 - self.beta2)

    def _advance(
        self, step: torch.Tensor, old: torch.Tensor, before: list[torch.Tensor], after: list[torch.Tensor]
    ) -> None:
        torch.mul(before[0], self.momentum, out=after[0]).add_(step, alpha=1 - self.momentum)
        self._second(step, before[1], after[1])
        torch.sqrt(after[1], out=step).add_(self.tau)
        torch.addcdiv(old, after[0], step, value=self.rate, out=step)


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """Yogi on the server: FedAdam but for v_t = v_t-1 - (1 - beta2) Delta_t^2 sign(v_t-1 - Delta_t^2).

    So the second moment changes by no more than a share of update^2, up or down. It begins at tau^2
    (Reddi et al., algorithm 2); Flower's FedYogi begins it at 0 and is the same otherwise.
    """

    def _second(self, step: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        square = step * step
        sign = torch.sign(before - square)
        torch.addcmul(before, square, sign, value=self.beta2 - 1, out=after)


def _check(state: _State, moments: tuple[str, ...], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a state that is neither empty nor this optimiser's for these tensors."""
    expected = {f"{moment}/{name}": tensor for moment in moments for name, tensor in tensors.items()}
    if not state:
        return
    if wrong := sorted(state.keys() ^ expected.keys()):
        kind = "unknown" if wrong[0] in state else "missing"
        raise TensorMismatch(f"the server optimiser's state is another's: '{wrong[0]}' is {kind}")
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape or state[key].dtype != torch.float32:
            raise TensorMismatch(
                f"the server optimiser's '{key}' is {state[key].dtype} of shape {tuple(state[key].shape)}, expected "
                f"torch.float32 of shape {tuple(tensor.shape)}"
            )


def _as(values: Tensors, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: values[name].to(tensor.dtype) for name, tensor in tensors.items()}
