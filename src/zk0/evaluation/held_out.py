"""Judge a policy on recorded frames: flow-matching loss, action error in degrees, safety.

Noise and times are fixed by seed, draw and frame, so two policies are compared on the very same
draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zk0.data.frames import ACTION, STATE, Frames
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import batch_for
from zk0.seeding import numpy_rng, torch_rng
from zk0.training.local import flow_draws

_BATCH = 32


@dataclass(frozen=True)
class Limits:
    """What the sites' recordings show the arm doing, in LeRobot's units.

    Attributes:
        low: (6,) smallest recorded joint position or target.
        high: (6,) largest.
        step: (6,) largest change from one frame's target to the next.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray


@dataclass(frozen=True)
class Excess:
    """How far a set of predicted actions leaves the limits, per joint.

    Attributes:
        range_deg: (6,) largest distance outside the recorded range (0 = inside).
        velocity: (6,) largest step as a multiple of the largest recorded one.
    """

    range_deg: np.ndarray
    velocity: np.ndarray

    def worst(self, other: Excess) -> Excess:
        """Joint by joint, the worse of two."""
        return Excess(np.maximum(self.range_deg, other.range_deg), np.maximum(self.velocity, other.velocity))


def _batches(frames: Frames) -> Iterator[np.ndarray]:
    for start in range(0, len(frames), _BATCH):
        yield np.arange(start, min(start + _BATCH, len(frames)))


@torch.no_grad()
def held_out_loss(loaded: LoadedPolicy, frames: Frames, draws: int, seed: int) -> float:
    """Mean flow-matching loss over all frames and ``draws`` fixed draws of noise and time each."""
    policy, device = loaded.policy, loaded.policy.config.device
    policy.eval()
    total = 0.0
    for rows in _batches(frames):
        with batch_for(loaded, frames, rows) as batch:
            for draw in range(draws):
                noise, times = flow_draws(policy.config, len(rows), torch_rng(seed, "held-out", draw, int(rows[0])))
                losses, _ = policy(dict(batch), noise=noise.to(device), time=times.to(device), reduction="none")
                total += float(losses.sum())
    return total / (len(frames) * draws)


def predict(loaded: LoadedPolicy, frames: Frames, rows: np.ndarray, seed: int, perturbation: float = 0.0) -> np.ndarray:
    """Predicted chunks for some frames, (B, chunk, 6) in LeRobot's units, from fixed noise.

    Args:
        loaded: Policy and processors.
        frames: Recorded frames.
        rows: Which of them.
        seed: Decides the noise.
        perturbation: Standard deviation of noise added to images and state, as a share of their
            range (0 = none).
    """
    config = loaded.policy.config
    noise = torch.randn(
        (len(rows), config.chunk_size, config.max_action_dim), generator=torch_rng(seed, "action", int(rows[0]))
    )
    loaded.policy.reset()
    if perturbation:
        batch = loaded.preprocess(_perturbed(frames.batch(rows, loaded.chunk), perturbation, seed, int(rows[0])))
        actions = loaded.policy.predict_action_chunk(batch, noise=noise.to(config.device))
    else:
        with batch_for(loaded, frames, rows) as batch:
            actions = loaded.policy.predict_action_chunk(batch, noise=noise.to(config.device))
    return np.asarray(loaded.postprocess(actions).numpy())


def _perturbed(batch: dict[str, Any], share: float, seed: int, first: int) -> dict[str, Any]:
    rng = numpy_rng(seed, "perturbation", first)
    noisy = dict(batch)
    for name, value in batch.items():
        if name == STATE:
            span = torch.full((1,), 180.0 * share)
            noisy[name] = value + span * torch.from_numpy(rng.normal(size=value.shape)).float()
        elif name.startswith("observation.images"):
            noisy[name] = (value + share * torch.from_numpy(rng.normal(size=value.shape)).float()).clamp(0, 1)
    return noisy


def action_errors(loaded: LoadedPolicy, frames: Frames, seed: int) -> np.ndarray:
    """Mean absolute error of the predicted actions, (6,), in LeRobot's units, padding left out."""
    total, count = np.zeros(frames.actions.shape[1]), 0
    for rows in _batches(frames):
        batch = frames.batch(rows, loaded.chunk, with_images=False)
        valid = ~batch["action_is_pad"].numpy()
        error = np.abs(predict(loaded, frames, rows, seed) - batch[ACTION].numpy())
        total += error[valid].sum(axis=0)
        count += int(valid.sum())
    return total / count


def chunk_excess(chunks: np.ndarray, states: np.ndarray, limits: Limits) -> Excess:
    """How far chunks (B, T, 6) that start at joint positions (B, 6) leave the limits."""
    outside = np.maximum(limits.low - chunks, chunks - limits.high).clip(0)
    steps = np.abs(np.diff(np.concatenate([states[:, None], chunks], axis=1), axis=1))
    ratio = steps / np.maximum(limits.step, 1e-3)
    return Excess(outside.max(axis=(0, 1)), ratio.max(axis=(0, 1)))


def held_out_excess(
    loaded: LoadedPolicy, frames: Frames, limits: Limits, seed: int, perturbation: float = 0.0
) -> Excess:
    """The worst excess over all frames, with or without perturbed observations."""
    worst = Excess(np.zeros(len(limits.low)), np.zeros(len(limits.low)))
    for rows in _batches(frames):
        chunks = predict(loaded, frames, rows, seed, perturbation)
        worst = worst.worst(chunk_excess(chunks, frames.states[rows], limits))
    return worst
