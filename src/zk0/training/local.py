"""A site's local training: some optimiser steps from the global model on its own frames."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zk0.data.frames import Frames
from zk0.params import TrainingParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.flow import batch_loss
from zk0.policy.inputs import Batch, FrameInputs, StoredFeatures
from zk0.policy.trainable import Tensors, load_trainable, trainable_tensors
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.optimizer import LocalOptimizer, Proximal, learning_rate
from zk0.training.processes import Part, team_for

# Frames, noise and times for them, and the weight by which the mean over all processes is the step's loss.
Share = tuple[Batch, Tensor, Tensor, float]


@dataclass(frozen=True)
class LocalTask:
    """What the server asks of a site in a round.

    Attributes:
        seed: The run's seed.
        partition: The site's index; batches and noise belong to it and to the round.
        round: From 1.
        training: Optimiser settings.
        decay_steps: Global step at which the learning rate has come down.
        proximal_mu: Weight of FedProx's term (0 = off).
        processes: How many share each step, but no more than it has frames.
    """

    seed: int
    partition: int
    round: int
    training: TrainingParams
    decay_steps: int
    proximal_mu: float = 0.0
    processes: int = 1


class LocalResult:
    """What came of it. The trained tensors stay in the policy until they are asked for.

    Attributes:
        loss: Mean over the steps, without the proximal term.
        examples: Frames seen.
        seconds: Taken.
        learning_rate: Of the last step.
        moments: The optimiser's, to carry on with in the site's next round; None unless
            ``training.keep_moments``.
    """

    def __init__(
        self,
        policy: nn.Module,
        loss: float,
        examples: int,
        seconds: float,
        learning_rate: float,
        moments: Tensors | None = None,
    ) -> None:
        self.loss, self.examples, self.seconds = loss, examples, seconds
        self.learning_rate, self.moments = learning_rate, moments
        self._policy, self._version = policy, _version(policy)

    @property
    def tensors(self) -> Tensors:
        """Copies of the trained tensors, by name, on the CPU.

        Raises:
            RuntimeError: The policy has been changed since.
        """
        self._check_unchanged()
        return trainable_tensors(self._policy)

    def update(self, start: Mapping[str, Tensor]) -> Tensors:
        """Trained less ``start``, by name, on the CPU: one pass, and no copy of the trained tensors.

        Raises:
            RuntimeError: The policy has been changed since.
        """
        self._check_unchanged()
        trained = {name: p.detach() for name, p in self._policy.named_parameters() if p.requires_grad}
        return {name: torch.sub(tensor.cpu(), start[name].cpu()) for name, tensor in trained.items()}

    def _check_unchanged(self) -> None:
        if _version(self._policy) != self._version:
            raise RuntimeError("the policy has been changed since it was trained: take the result before its next use")


def _version(policy: nn.Module) -> int:
    """Grows with every change in place of a parameter."""
    return sum(p._version for p in policy.parameters() if p.requires_grad)


def flow_draws(config: object, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise (B, chunk, A) and times (B,) for flow matching, as SmolVLA draws them.

    A Beta(1.5, 1) variable is a uniform one to the power 1 / 1.5; SmolVLA scales it to
    [0.001, 1].
    """
    shape = (batch, config.chunk_size, config.max_action_dim)  # type: ignore[attr-defined]
    noise = torch.randn(shape, generator=rng)
    return noise, torch.rand(batch, generator=rng).pow(1 / 1.5) * 0.999 + 0.001


def train_locally(
    loaded: LoadedPolicy,
    frames: Frames,
    start: Mapping[str, Tensor],
    task: LocalTask,
    features: StoredFeatures | None = None,
    moments: Mapping[str, Tensor] | None = None,
) -> LocalResult:
    """Train from ``start``; the policy is left holding the result.

    Args:
        loaded: Policy and processors.
        frames: The site's training frames.
        start: The global model's trainable tensors.
        task: What the server asks.
        features: The frames' cached features; what the round needs of them is computed before its
            first step. None reads images.
        moments: What an earlier round's result kept; used where ``training.keep_moments`` is on.

    Raises:
        FloatingPointError: The mean loss is not finite; says of which site and round.
        TensorMismatch: ``start`` or ``moments`` do not fit the policy; names the tensor.
        StageError: See :func:`zk0.training.processes.team_for`; or one of the other processes ended, and why.
    """
    began = time.perf_counter()
    policy, settings = loaded.policy, task.training
    load_trainable(policy, start)
    policy.zero_grad(set_to_none=True)  # a round that failed may have left some
    before = moments if settings.keep_moments else None
    optimizer = LocalOptimizer(policy, settings, before)
    team = team_for(policy, min(task.processes, settings.batch))
    draw = _draws(loaded, frames, task, features, team.size)
    team.begin(_take_part, task, dict(start) if task.proximal_mu else {}, before)
    mean, rate = _take_steps(policy, optimizer, start, task, lambda step: team.deal(draw(step)), team.part)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"partition {task.partition}, round {task.round}: the training loss is {mean}; lower training.learning_rate"
        )
    kept = optimizer.moments() if settings.keep_moments else None
    examples = settings.local_steps * settings.batch
    return LocalResult(policy, mean, examples, time.perf_counter() - began, rate, kept)


def _take_part(
    policy: nn.Module,
    part: Part,
    receive: Callable[[int], Share],
    task: LocalTask,
    start: Tensors,
    moments: Tensors | None,
) -> None:
    """In another process: the same steps, from the same parameters, on other shares."""
    _take_steps(policy, LocalOptimizer(policy, task.training, moments), start, task, receive, part)


def _take_steps(
    policy: Any,
    optimizer: LocalOptimizer,
    start: Mapping[str, Tensor],
    task: LocalTask,
    draw: Callable[[int], Share],
    part: Part,
) -> tuple[float, float]:
    """A round's steps: the mean loss, and the last learning rate."""
    settings, device = task.training, next(policy.parameters()).device
    proximal = Proximal(policy, start, task.proximal_mu) if task.proximal_mu else None
    total = torch.zeros((), device=device)
    rate = settings.learning_rate
    policy.train()
    with (
        ahead((lambda step: _pinned(draw(step))) if device.type == "cuda" else draw, settings.local_steps) as shares,
        part,
    ):
        losses = part.sharing(_Losses(policy, settings.smoothness))
        for step, (batch, noise, times, weight) in enumerate(shares):
            rate = learning_rate((task.round - 1) * settings.local_steps + step, settings, task.decay_steps)
            noise, times = (tensor.to(device, non_blocking=True) for tensor in (noise, times))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss = losses(batch.to(device), noise, times) * weight
            total += loss.detach()
            loss.backward()
            if proximal is not None:
                proximal.add_gradient()
            optimizer.step(rate)
        mean = float(part.mean(total)) / settings.local_steps  # the round's only wait for the device
    policy.eval()
    return mean, rate


def _pinned(share: Share) -> Share:
    batch, noise, times, weight = share
    return batch.pinned(), noise.pin_memory(), times.pin_memory(), weight


class _Losses(nn.Module):
    """:func:`batch_loss` as a module."""

    def __init__(self, policy: nn.Module, smoothness: float) -> None:
        super().__init__()
        self.policy, self.smoothness = policy, smoothness

    def forward(self, batch: Batch, noise: Tensor, times: Tensor) -> Tensor:
        return batch_loss(self.policy, batch, noise, times, smoothness=self.smoothness)


def rows_drawn(task: LocalTask, frames: int) -> list[np.ndarray]:
    """The rows, of so many frames, that a round's steps train on: (batch,) for each step."""
    rng = numpy_rng(task.seed, "batch", task.partition, task.round)
    return [rng.integers(frames, size=task.training.batch) for _ in range(task.training.local_steps)]


def _draws(
    loaded: LoadedPolicy, frames: Frames, task: LocalTask, features: StoredFeatures | None, shares: int
) -> Callable[[int], list[Share]]:
    """A step's shares, by its number; to be asked for in order, since the noise comes from one generator.

    All rows of the round are drawn first, so that their features are computed before its first step. A loss is the mean
    over actions that are not padding, so a share weighs as much as it has of those.
    """
    settings, config = task.training, loaded.policy.config
    flow_rng = torch_rng(task.seed, "flow", task.partition, task.round)
    rows = rows_drawn(task, len(frames))
    if features is not None:
        features.ensure(np.unique(np.concatenate(rows)))
    inputs = FrameInputs(loaded, frames, features)
    places = np.array_split(np.arange(settings.batch), shares)

    def draw(step: int) -> list[Share]:
        noise, times = flow_draws(config, settings.batch, flow_rng)
        batches = [inputs.batch(rows[step][place]) for place in places]
        real = [int((~batch.is_pad).sum()) for batch in batches if batch.is_pad is not None]
        weights = [shares * count / sum(real) for count in real]
        return [(b, noise[p], times[p], w) for b, p, w in zip(batches, places, weights, strict=True)]

    return draw


@contextmanager
def ahead[T](make: Callable[[int], T], count: int, depth: int = 2) -> Iterator[Iterator[T]]:
    """``make(0)`` to ``make(count - 1)``, in this order, made by one other thread a few ahead.

    What ``make`` raises is raised where its result is asked for. Leaving the block, by an error or
    by Ctrl-C too, drops what was not begun and waits for the one that is being made.

    Args:
        make: Called in the other thread, one call at a time, so it may own a generator.
        count: How many.
        depth: How many are made before they are asked for.

    >>> with ahead(lambda number: number * number, 4) as squares:
    ...     list(squares)
    [0, 1, 4, 9]
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="zk0-ahead")
    waiting: deque[Future[T]] = deque(pool.submit(make, number) for number in range(min(depth, count)))

    def results() -> Iterator[T]:
        for following in range(len(waiting), count + len(waiting)):
            found = waiting.popleft().result()
            if following < count:
                waiting.append(pool.submit(make, following))
            yield found

    try:
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
