"""A site's local training: some optimiser steps from the global model on its own frames."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from zk0.data.frames import Frames
from zk0.params import TrainingParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import batch_for
from zk0.policy.trainable import Tensors, load_trainable, trainable_tensors
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.schedule import learning_rate


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
    """

    seed: int
    partition: int
    round: int
    training: TrainingParams
    decay_steps: int
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class LocalResult:
    """What came of it: the trained tensors, the mean loss, frames seen, seconds taken."""

    tensors: Tensors
    loss: float
    examples: int
    seconds: float
    learning_rate: float


def flow_draws(config: object, batch: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (B, chunk, A) and times (B,) for flow matching, as SmolVLA draws them.

    A Beta(1.5, 1) variable is a uniform one to the power 1 / 1.5; SmolVLA scales it to
    [0.001, 1].
    """
    shape = (batch, config.chunk_size, config.max_action_dim)  # type: ignore[attr-defined]
    noise = torch.randn(shape, generator=rng)
    return noise, torch.rand(batch, generator=rng).pow(1 / 1.5) * 0.999 + 0.001


def proximal_term(policy: nn.Module, reference: Tensors, mu: float) -> torch.Tensor:
    """mu / 2 times the squared distance of the trainable parameters to the global model.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, equation 2.
    """
    squares = [
        (parameter - reference[name].to(parameter.device)).square().sum()
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    ]
    return 0.5 * mu * torch.stack(squares).sum()


def train_locally(loaded: LoadedPolicy, frames: Frames, start: Tensors, task: LocalTask) -> LocalResult:
    """Train from ``start``; the policy is left holding the result.

    Raises:
        FloatingPointError: The mean loss is not finite; says of which site and round.
    """
    began = time.perf_counter()
    policy, settings = loaded.policy, task.training
    load_trainable(policy, start)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    rows_rng = numpy_rng(task.seed, "batch", task.partition, task.round)
    flow_rng = torch_rng(task.seed, "flow", task.partition, task.round)
    device = policy.config.device
    policy.train()
    total = torch.zeros((), device=device)
    rate = settings.learning_rate
    for step in range(settings.local_steps):
        rate = learning_rate((task.round - 1) * settings.local_steps + step, settings, task.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rows_rng.integers(len(frames), size=settings.batch)
        noise, times = flow_draws(policy.config, settings.batch, flow_rng)
        with batch_for(loaded, frames, rows) as batch:
            loss, _ = policy(batch, noise=noise.to(device), time=times.to(device))
        total += loss.detach()
        if task.proximal_mu:
            loss = loss + proximal_term(policy, start, task.proximal_mu)
        optimizer.zero_grad()
        loss.backward()
        if settings.grad_clip:
            nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        optimizer.step()
    policy.eval()
    mean = float(total) / settings.local_steps
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise FloatingPointError(
            f"partition {task.partition}, round {task.round}: the training loss is {mean}; lower training.learning_rate"
        )
    return LocalResult(
        trainable_tensors(policy), mean, settings.local_steps * settings.batch, time.perf_counter() - began, rate
    )
